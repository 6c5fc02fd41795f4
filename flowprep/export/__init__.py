"""Ways out: shards to what other tools read."""
