"""What other servers say to us, one verb per module, its Undo beside it. The table of verbs is in `inbox`."""
