"""What can be seen of the program while it runs: ids in the log (`trail`), lines left out of it (`sampling`), figures
(`metrics`), traces (`traces`).

Rule: nothing here decides anything, and nothing fails because it cannot be seen. No host, handle, address or path of
a stranger becomes a label: what a stranger can invent would grow without end.
"""
