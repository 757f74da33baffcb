"""Measure many checkpoints on many tasks in one pass over the data."""
