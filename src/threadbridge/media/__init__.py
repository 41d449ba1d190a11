"""Pictures, videos and sound: sniffed, cleaned of what they tell about people, measured, kept by their hash.

Rule: nothing is served that was not recognised by its own bytes, and nothing is decoded in this process.
"""
