"""Settings: validated, frozen, to and from JSON."""

import json

import pytest

from wisepatch.config import EvalConfig, ModelConfig
from wisepatch.errors import UsageError
from wisepatch.train_config import TrainConfig

SEE_HELP = "see --help for what each setting takes"


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"batch_size": 0}, "batch-size must be above 0, not 0"),
        ({"workers": -1}, "workers must not be negative, as -1 is"),
        ({"mixed_precision": "fp8"}, "mixed-precision is no, bf16 or fp16, not 'fp8'"),
    ],
)
def test_settings_of_an_evaluation_that_are_off_are_named(given_settings, message):
    with pytest.raises(UsageError) as caught:
        EvalConfig(**given_settings)
    assert (caught.value.message, caught.value.hint) == (message, SEE_HELP)


def test_a_model_without_a_name_is_refused():
    with pytest.raises(UsageError) as caught:
        ModelConfig(model="")
    assert (caught.value.message, caught.value.hint) == ("the model has no name", SEE_HELP)


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig("MNIST"),
        TrainConfig.with_defaults(
            "pets",
            head="trained",
            supported=("CIFAR10", "typo:Shapes"),
            classnames=("a cat", "ein Käfer"),
            templates=("a photo of a {}.",),
            epochs=1.5,
            warmup=0,
            start="patched",
            eval_every=0.5,
        ),
        EvalConfig(),
        EvalConfig(batch_size=3, workers=0, mixed_precision="fp16", cache_images=True, compiled=True),
        ModelConfig(),
        ModelConfig("ViT-B-16", "/some/weights.pt"),
    ],
    ids=lambda config: type(config).__name__,
)
def test_settings_survive_json(config):
    assert type(config).from_json(json.loads(json.dumps(config.to_json()))) == config


def test_fields_of_a_newer_version_are_passed_over():
    data = TrainConfig("MNIST", lr=0.1).to_json() | {"telepathy": True}
    assert TrainConfig.from_json(data) == TrainConfig("MNIST", lr=0.1)


def test_settings_read_back_are_validated():
    with pytest.raises(UsageError, match="lr must be above 0"):
        TrainConfig.from_json({"task": "MNIST", "lr": -1})


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError):
        TrainConfig("MNIST").lr = 1.0
