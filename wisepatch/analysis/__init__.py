"""Numbers in, numbers out: metrics with intervals, paired tests, and the rules that choose alpha."""
