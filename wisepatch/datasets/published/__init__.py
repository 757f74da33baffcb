"""Public datasets, one family a file."""
