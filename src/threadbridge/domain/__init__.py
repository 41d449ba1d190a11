"""The nouns of the house: accounts, posts, people, and the port to a source network. Pure data, no behaviour
that needs a clock, a socket or a file."""
