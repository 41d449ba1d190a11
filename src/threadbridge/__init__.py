"""threadbridge: a federated ActivityPub bridge for Threads-style accounts.

The map of the house is in README.md, chapter "Map". Importing this package does nothing.
"""

__version__ = "0.1.0"
