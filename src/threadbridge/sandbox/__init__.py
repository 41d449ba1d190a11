"""The mock Threads network: a small server that speaks the documented Threads API, with people, posts and faults of
its own, for tests, the demo, and whoever has no Meta app."""
