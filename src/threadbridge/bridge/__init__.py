"""From the source to the Fediverse: `cadence` says when an account is read, `reading` reads it over the network,
`compare` decides what a page means and writes it down, with what is to be said about it; `holding` keeps new posts
back for as long as their owner wants."""
