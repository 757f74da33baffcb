"""The learning rate of each step, and how long it warms up."""

import pytest

from wisepatch import TrainConfig
from wisepatch.training.schedule import learning_rate, warmup_steps


def test_schedule_warms_up_then_follows_half_a_cosine_to_zero():
    rates = [learning_rate(step, 100, 10, 2.0) for step in range(101)]
    assert rates[:10] == pytest.approx([2.0 * (i + 1) / 10 for i in range(10)])
    assert rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.0)


def test_warmup_is_the_papers_at_most_a_tenth_unless_given():
    paint = TrainConfig.with_defaults("Digits")
    assert [warmup_steps(paint, steps) for steps in (2000, 5000, 100, 5)] == [200, 200, 10, 0]
    assert warmup_steps(TrainConfig.with_defaults("Digits", head="trained"), 10_000) == 500
    assert warmup_steps(TrainConfig.with_defaults("Digits", warmup=7), 10) == 7
