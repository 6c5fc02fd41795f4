"""Extraction: plan, shard jobs, executors, progress."""
