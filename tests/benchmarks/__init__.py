"""wisepatch beside the papers' way of doing the same, on this machine: ``python -m tests.benchmarks``."""
