"""The network: the address guard, the one HTTP client behind it, and other servers' documents.

Rule: every socket to the outside is opened here, to an address that the guard has judged.
"""
