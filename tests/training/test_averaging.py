"""Averages of weights on the way, against sums written out."""

import pytest
import torch

from wisepatch import TrainConfig
from wisepatch.errors import UsageError
from wisepatch.training.averaging import Average, LastQuarter, MovingAverage, average_of


def parameters(value=0.0):
    return {"weight": torch.nn.Parameter(torch.tensor([value, 1.0]))}


def walk(average, weights, values):
    for step, value in enumerate(values, 1):
        weights["weight"].data[0] = value
        average.update(step)


def test_a_moving_average_forgets_by_its_decay_and_sooner_at_first():
    weights = parameters(8.0)
    average = MovingAverage(weights, 0.3)
    walk(average, weights, [1.0, 2.0, 4.0])
    expected = 8.0
    for step, value in enumerate([1.0, 2.0, 4.0], 1):
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert average.tensors["weight"].tolist() == pytest.approx([expected, 1.0])


def test_swa_is_the_mean_of_the_last_quarter_at_a_constant_rate():
    weights = parameters()
    average = LastQuarter(weights, 8)
    assert average.holds_rate_from == 6
    walk(average, weights, [9.0] * 6)
    assert average.tensors == {}
    walk_on = [3.0, 5.0]
    for step, value in enumerate(walk_on, 7):
        weights["weight"].data[0] = value
        average.update(step)
    assert average.tensors["weight"].tolist() == [4.0, 1.0]


def test_an_average_stands_in_the_model_for_a_while_or_for_good():
    weights = parameters(2.0)
    average = MovingAverage(weights, 0.5)
    weights["weight"].data[0] = 7.0
    with average.in_place():
        assert weights["weight"].tolist() == [2.0, 1.0]
    assert weights["weight"].tolist() == [7.0, 1.0]
    average.put_in_place()
    assert weights["weight"].tolist() == [2.0, 1.0]
    nothing = Average()
    with nothing.in_place():
        nothing.update(1)
    assert nothing.tensors == {}


def test_settings_say_which_average_is_kept_and_two_are_refused():
    kinds = [{}, {"ema": 0.9}, {"swa": True}]
    made = [average_of(TrainConfig("Shapes", **each), parameters(), 8) for each in kinds]
    assert [type(each) for each in made] == [Average, MovingAverage, LastQuarter]
    for wrong, reason in (
        ({"ema": 0.9, "swa": True}, "give either ema or swa"),
        ({"ema": 1.0}, "ema must lie between 0 and 1"),
        ({"lora": 2, "swa": True}, "lora trains factors, whose mean is not that of the weights"),
        ({"layer_decay": 0.0}, "layer-decay must lie in"),
        (
            {"lora": 2, "freeze_encoder": True},
            "lora is about the image encoder, and freeze-encoder leaves that as it is",
        ),
    ):
        with pytest.raises(UsageError, match=reason):
            TrainConfig("Shapes", **wrong)
