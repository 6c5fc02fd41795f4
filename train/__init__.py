"""From shards to a student that sees motion in RGB alone."""
