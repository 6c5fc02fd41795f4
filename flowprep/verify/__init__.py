"""Check a finished dataset against what it claims."""
