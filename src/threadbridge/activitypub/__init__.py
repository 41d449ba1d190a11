"""What may be said in the Fediverse: identifiers, markup, reading what arrives, building what leaves. Pure: nothing
here knows a clock, a socket or a database. All ActivityStreams words live in this package."""
