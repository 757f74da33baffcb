"""Whole jobs: sweep alpha, patch, attack."""
