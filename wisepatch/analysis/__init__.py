"""Numbers in, numbers out: metrics with intervals, and the rules that choose alpha."""
