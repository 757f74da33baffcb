"""Trackers: what is logged reaches them, and none of them ends a training."""

import pytest
from accelerate import tracking
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from tests.samples import Notes, fails
from wisepatch import ModelConfig, Store, TrainConfig
from wisepatch.errors import UsageError
from wisepatch.store.runs import logged_trainings
from wisepatch.training.tracking import trackers
from wisepatch.workflows.patching import finetune_watched

DEMO = ModelConfig("demo", "")


class StandIn(GeneralTracker):
    """Keeps what a tracker is told."""

    name = "stand-in"
    requires_logging_directory = False
    told: list = []  # noqa: RUF012

    def __init__(self, run_name, **_):
        super().__init__()
        self.told.append(("project", run_name))

    @property
    def tracker(self):
        return None

    def store_init_configuration(self, values):
        self.told.append(("settings", values))

    def log(self, values, step, **_):
        self.told.append((step, values))

    def finish(self):
        self.told.append(("end", None))


@pytest.fixture
def stand_in(monkeypatch):
    if not hasattr(tracking, "register_tracker_class"):
        pytest.skip("this Accelerate takes no trackers by name")
    tracking.register_tracker_class(StandIn)
    monkeypatch.setattr(StandIn, "told", [])
    yield StandIn
    del LOGGER_TYPE_TO_CLASS["stand-in"]


def settings(shapes, **more):
    return TrainConfig.with_defaults(str(shapes), steps=2, batch_size=4, warmup=0, eval_every=0.01, **more)


def test_trackers_are_told_settings_losses_rates_and_validation(stand_in, shapes, tmp_path):
    done = finetune_watched(settings(shapes, track="stand-in"), DEMO, Store(tmp_path / "store"), tmp_path)
    told = stand_in.told
    assert told[0] == ("project", "wisepatch")
    assert dict(told)["settings"]["batch_size"] == 4
    assert told[-1] == ("end", None)
    logged = {name: (step, value) for step, values in told[2:-1] for name, value in values.items()}
    assert logged["loss"] == (2, done.losses[-1])
    assert {"lr", "epoch", "validation/shapes"} <= set(logged)
    assert "track" not in done.finetuned.config


def test_a_tracker_that_fails_is_said_and_the_training_goes_on(stand_in, shapes, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(stand_in, "log", fail)
    notes = Notes()
    store = Store(tmp_path / "store")
    finetune_watched(settings(shapes, track="stand-in"), DEMO, store, tmp_path, notes)
    said = [note for note in notes.notes if "tracking stops" in note]
    assert said == ["tracking stops, the training goes on: ConnectionError: no network"]
    assert len(logged_trainings(store.root)[0].entries) > 2


def test_trackers_that_are_not_there_are_said_before_work(cli, shapes, monkeypatch):
    words = ("finetune", "--model", "demo", "--task", shapes)
    fails(cli(*words, "--track", "tensorbord"), 2, "unknown tracker 'tensorbord'; did you mean tensorboard")
    monkeypatch.setattr("wisepatch.training.tracking.get_available_trackers", list)
    fails(cli(*words, "--track", "wandb"), 2, "the tracker wandb is not installed", "pip install wandb")
    both = cli("patch", *words[1:], "--supported", "ImageNetA", "--track", "wandb")
    fails(both, 2, "the tracker wandb is not installed")
    with pytest.raises(UsageError):
        trackers("tensorboard")
    assert trackers(None) == trackers("") == []


@pytest.mark.extra
def test_tensorboard_reads_what_was_logged_run_by_run(shapes, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    store = Store(tmp_path / "store")
    for number, name in enumerate(("first try", "")):
        finetune_watched(settings(shapes, track="tensorboard", seed=number), DEMO, store, tmp_path, run_name=name)
    logged = EventMultiplexer().AddRunsFromDirectory(str(store.root / "tracking"))
    logged.Reload()
    tags = {run: set(found["scalars"]) for run, found in logged.Runs().items() if found["scalars"]}
    first, second = (training.folder.name for training in logged_trainings(store.root))
    assert set(tags) == {f"first_try-{first}/wisepatch", f"{second}/wisepatch"}
    assert all(found >= {"loss", "lr", "epoch", "validation/shapes"} for found in tags.values())
    for training in logged_trainings(store.root):
        (run,) = (each for each in tags if training.folder.name in each)
        losses = [(entry["step"], pytest.approx(entry["loss"])) for entry in training.entries if "loss" in entry]
        assert [(each.step, each.value) for each in logged.Scalars(run, "loss")] == losses
