"""Settings of a fine-tuning, and the papers' defaults."""

import pytest

from wisepatch.config import EvalConfig
from wisepatch.errors import UsageError
from wisepatch.train_config import TrainConfig

SEE_HELP = "see --help for what each setting takes"


def test_paint_is_the_default_procedure():
    config = TrainConfig.with_defaults("MNIST")
    assert (config.training, config.head, config.freeze_encoder) == ("paint", "frozen", False)
    assert (config.steps, config.epochs, config.batch_size, config.lr) == (2000, None, 128, 1e-5)
    assert (config.warmup, config.paper_warmup, config.wd) == (None, 200, 0.1)
    assert config == TrainConfig("MNIST")


def test_a_trained_head_takes_the_defaults_of_wise_ft():
    config = TrainConfig.with_defaults("MNIST", head="trained")
    assert (config.training, config.head, config.freeze_encoder) == ("wise-ft", "trained", False)
    assert (config.steps, config.epochs, config.batch_size, config.lr) == (None, 10.0, 512, 3e-5)
    assert config.paper_warmup == 500


@pytest.mark.parametrize("head", ["frozen", "trained"])
def test_a_frozen_encoder_is_the_linear_classifier_whatever_the_head(head):
    config = TrainConfig.with_defaults("MNIST", head=head, freeze_encoder=True)
    assert (config.training, config.head, config.freeze_encoder) == ("linear-probe", "trained", True)
    assert (config.steps, config.epochs, config.batch_size, config.lr) == (None, 10.0, 512, 1e-3)
    assert config.paper_warmup == 500


def test_what_is_given_replaces_a_default_and_none_does_not():
    config = TrainConfig.with_defaults("MNIST", head="trained", lr=0.5, batch_size=None, seed=7, wd=0.0)
    assert (config.lr, config.batch_size, config.seed, config.wd) == (0.5, 512, 7, 0.0)


def test_given_steps_replace_the_epochs_of_wise_ft():
    config = TrainConfig.with_defaults("MNIST", head="trained", steps=3)
    assert (config.steps, config.epochs) == (3, None)


def test_given_epochs_replace_the_steps_of_paint():
    config = TrainConfig.with_defaults("MNIST", epochs=0.5)
    assert (config.steps, config.epochs) == (None, 0.5)


@pytest.mark.parametrize("head", ["frozen", "trained"])
def test_steps_and_epochs_together_are_refused(head):
    with pytest.raises(UsageError) as caught:
        TrainConfig.with_defaults("MNIST", head=head, steps=3, epochs=2)
    assert (caught.value.message, caught.value.hint) == ("give either steps or epochs", SEE_HELP)


def test_neither_steps_nor_epochs_is_refused():
    with pytest.raises(UsageError, match=r"^give either steps or epochs$"):
        TrainConfig("MNIST", steps=None)


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"steps": 0}, "steps must be above 0, not 0"),
        ({"epochs": -1.0}, "epochs must be above 0, not -1.0"),
        ({"lr": 0.0}, "lr must be above 0, not 0.0"),
        ({"lr": float("nan")}, "lr must be above 0, not nan"),
        ({"batch_size": -4}, "batch-size must be above 0, not -4"),
        ({"clip": 0.0}, "clip must be above 0, not 0.0"),
        ({"grad_accumulation": 0}, "grad-accumulation must be above 0, not 0"),
        ({"eval_every": 0.0}, "eval-every must be above 0, not 0.0"),
        ({"warmup": -1}, "warmup must not be negative"),
        ({"wd": -0.1}, "wd must not be negative"),
        ({"workers": -1}, "workers must not be negative"),
        ({"label_smoothing": 1.0}, "label-smoothing must lie in [0, 1), not 1.0"),
        ({"label_smoothing": -0.1}, "label-smoothing must lie in [0, 1), not -0.1"),
        ({"head": "melted"}, "head is frozen or trained, not 'melted'"),
        ({"mixed_precision": "fp8"}, "mixed-precision is no, bf16 or fp16, not 'fp8'"),
    ],
)
def test_a_setting_that_is_off_is_named_with_its_value(given_settings, message):
    with pytest.raises(UsageError) as caught:
        TrainConfig.with_defaults("MNIST", **given_settings)
    assert (caught.value.message, caught.value.hint) == (message, SEE_HELP)


def test_all_settings_that_are_off_are_named_in_one_error():
    with pytest.raises(UsageError) as caught:
        TrainConfig("MNIST", lr=-1.0, batch_size=0, wd=-0.5, head="none", mixed_precision="fp64")
    assert caught.value.message.split("; ") == [
        "lr must be above 0, not -1.0",
        "batch-size must be above 0, not 0",
        "wd must not be negative",
        "head is frozen or trained, not 'none'",
        "mixed-precision is no, bf16 or fp16, not 'fp64'",
    ]
    assert caught.value.exit_code == 2


def test_what_was_trained_is_evaluated_with_its_precision_and_processes():
    config = TrainConfig("MNIST", mixed_precision="bf16", workers=3, batch_size=512)
    assert config.evaluation == EvalConfig(mixed_precision="bf16", workers=3, batch_size=None)


def test_freezing_the_encoder_trains_the_head_also_without_defaults_of_a_paper():
    config = TrainConfig(task="MNIST", freeze_encoder=True)
    assert (config.head, config.training, config.paper_warmup) == ("trained", "linear-probe", 500)


def test_a_limit_is_part_of_what_identifies_a_training_and_none_changes_nothing():
    whole, few = (TrainConfig.with_defaults("MNIST", limit=limit) for limit in (None, 100))
    assert "limit" not in whole.identity
    assert few.identity == whole.identity | {"limit": 100}
    with pytest.raises(UsageError, match="limit must be above 0, not 0"):
        TrainConfig.with_defaults("MNIST", limit=0)


def test_settings_that_came_later_are_part_of_an_identity_where_they_are_used_and_change_no_older_one():
    plain = TrainConfig.with_defaults("MNIST")
    assert not {"objective", "objective_param", "distill_on", "ema", "swa", "layer_decay", "lora", "freeze"} & set(
        plain.identity
    )
    used = {
        "objective": "lipsum", "objective_param": ("weight=2",), "distill_on": "photos", "ema": 0.9, "layer_decay": 0.5,
        "freeze": ("stem", "0-3"),
    }  # fmt: skip
    for name, value in used.items():
        assert TrainConfig.with_defaults("MNIST", **{name: value}).identity == plain.identity | {name: value}
    assert TrainConfig.with_defaults("MNIST", swa=True).identity == plain.identity | {"swa": True}
    assert TrainConfig.with_defaults("MNIST", lora=4).identity == plain.identity | {"lora": 4}
    assert TrainConfig.with_defaults("MNIST", freeze="stem, 0-3").freeze == ("stem", "0-3")
    assert TrainConfig.from_json(TrainConfig("MNIST", freeze=("stem",)).to_json()).freeze == ("stem",)
    with pytest.raises(UsageError, match="the list ',' names nothing"):
        TrainConfig.with_defaults("MNIST", freeze=",")
