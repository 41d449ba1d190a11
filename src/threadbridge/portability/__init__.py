"""How everything leaves and arrives: the owner's archive, its building and its checking, and the import of what
others wrote."""
