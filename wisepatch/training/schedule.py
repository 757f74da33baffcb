"""Follow the papers' learning rate: a linear warm-up, then half a cosine to zero."""

from __future__ import annotations

import math

from wisepatch.train_config import TrainConfig

MAX_WARMUP_SHARE = 0.1  # of the run, where the warm-up is the paper's and not the user's


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Return the rate of step ``step`` (from 0): linear warm-up, then half a cosine to zero (PAINT section 3)."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def warmup_steps(config: TrainConfig, steps: int) -> int:
    """Return the warm-up in steps as given, or the paper's, at most a tenth of the run."""
    if config.warmup is not None:
        return config.warmup
    return min(config.paper_warmup, int(steps * MAX_WARMUP_SHARE))
