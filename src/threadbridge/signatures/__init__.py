"""Who said it: keys, and the two ways of signing HTTP requests in the Fediverse. Pure: time and keys arrive as
arguments, nothing is fetched. `schemes` is the entrance; nothing outside needs the two dialects themselves."""
