"""Whole jobs: sweep alpha, patch one task or several, merge, compare, predict, import, attack."""
