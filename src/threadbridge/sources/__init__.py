"""Centralized networks behind one port: what they send becomes `domain.source` types here, and nowhere else.

Rule: wire words and wire quirks end at this border. Nothing here writes to the database.
"""
