"""All built-in objectives: what a table row says, and what holds for each of them in a training."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from tests.samples import Notes
from tests.test_process_group import together
from tests.training.objectives.tiny import check_gradient, prepared, value
from wisepatch import ModelConfig, Store, TrainConfig, load_weights
from wisepatch.errors import Stopped, UsageError
from wisepatch.plugins import find_objective, registry
from wisepatch.training import finetuning
from wisepatch.training.objectives.builtin import OBJECTIVES
from wisepatch.workflows.patching import finetune_watched

NAMES = [each.name for each in OBJECTIVES]
DEMO = ModelConfig("demo", "")
SLOW = pytest.mark.slow
SHORT = {"steps": 5, "batch_size": 5, "lr": 1e-2, "warmup": 0, "save_every": 0}  # 12 images: three batches an epoch
REFUSED = {
    ("flyp", "trained"): "flyp takes the head from the text tower, and the head is to be trained",
    ("lp-ft", "frozen"): "lp-ft trains the head, and the head is to be frozen",
    **{
        (name, "probe"): f"{name} trains the image encoder, and --freeze-encoder leaves it as it is"
        for name in ("flyp", "lp-ft", "distill", "lipsum", "car-ft")
    },
}
HEADS = {"frozen": {"head": "frozen"}, "trained": {"head": "trained"}, "probe": {"freeze_encoder": True, "steps": 5}}


def train(folder, store, name, progress=None, fresh=False, **settings):
    given = {"head": find_objective(name).head or None, "objective": name} | SHORT | settings
    return finetune_watched(
        TrainConfig.with_defaults(str(folder), **given), DEMO, Store(store), folder, progress, fresh=fresh
    )


@pytest.fixture
def stop_at(monkeypatch):
    """Send a signal while the step of this number, from 1, is trained on."""
    calls, original = [], finetuning.learning_rate

    def prepare(number):
        calls.clear()

        def learning_rate(*given):
            calls.append(given)
            if len(calls) == number:
                os.kill(os.getpid(), signal.SIGINT)
            return original(*given)

        monkeypatch.setattr(finetuning, "learning_rate", learning_rate)

    return prepare


def test_rows_name_their_papers_and_come_through_the_hook_without_heavy_code():
    assert NAMES == ["cross-entropy", "flyp", "lp-ft", "l2-sp", "distill", "lipsum", "car-ft"]
    assert set(NAMES) == set(registry().all("register_objectives"))
    assert all(each.paper for each in OBJECTIVES)
    code = "import sys, wisepatch.training.objectives.builtin; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert out.stdout.strip() == "False"


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name):
    loss, model, _, batch = prepared(name)
    check_gradient(loss, model, batch)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_of_a_batch_depends_on_the_batch_alone(name):
    loss, model, _, batch = prepared(name)
    first = value(loss(model, batch))
    torch.rand(3)
    loss(model, batch._replace(number=8))
    assert value(loss(model, batch)) == first


@pytest.mark.parametrize("how", HEADS)
@pytest.mark.parametrize("name", NAMES)
def test_each_runs_with_every_head_or_is_refused_by_name_before_anything_is_loaded(
    name, how, shapes, tmp_path, monkeypatch
):
    if (name, how) in REFUSED:
        monkeypatch.setattr(finetuning, "load_start", None)
        with pytest.raises(UsageError, match=REFUSED[name, how]):
            train(shapes, tmp_path / "store", name, **HEADS[how])
        assert not (tmp_path / "store").exists()
        return
    done = train(shapes, tmp_path / "store", name, steps=2, **{k: v for k, v in HEADS[how].items() if k != "steps"})
    start, end = (load_weights(Store(tmp_path / "store"), each) for each in (done.zeroshot, done.finetuned))
    parts = {
        each.split(".")[0] if each.split(".")[0] in ("visual", "classifier") else "text" for each in changed(start, end)
    }
    tower = set() if how == "probe" else {"visual"}
    expected = tower | ({"text"} if name == "flyp" else set()) | (set() if how == "frozen" else {"classifier"})
    assert parts == expected
    assert all(tensor.isfinite().all() for tensor in end.values())
    base = {"frozen": "paint", "trained": "wise-ft", "probe": "linear-probe"}[how]
    whole = {"cross-entropy": base, "flyp": "flyp", "lp-ft": "lp-ft"}
    assert done.finetuned.training == whole.get(name, f"{base}+{name}")


def changed(start, end):
    assert start.keys() == end.keys()
    return {name for name in start if not torch.equal(start[name], end[name])}


@pytest.mark.parametrize(
    "settings",
    [
        *(pytest.param({"name": name}, marks=SLOW) for name in NAMES[1:]),
        pytest.param({"name": "cross-entropy", "ema": 0.9}, marks=SLOW),
        {"name": "cross-entropy", "swa": True},
        {"name": "lipsum", "lora": 2, "mixed_precision": "bf16"},
        {"name": "flyp", "ema": 0.9, "layer_decay": 0.5, "freeze": ("stem",), "keep_best": "top1"},
        {"name": "distill", "distill_on": "Colors", "limit": 12, "grad_accumulation": 2},
    ],
    ids=lambda settings: " ".join(f"{key}={given}" for key, given in settings.items()),
)
def test_a_training_that_was_stopped_goes_on_to_the_same_weights(shapes, tmp_path, stop_at, settings):
    straight = train(shapes, tmp_path / "straight", **settings)
    stop_at(4)
    with pytest.raises(Stopped):
        train(shapes, tmp_path / "stopped", **settings)
    resumed = train(shapes, tmp_path / "stopped", **settings)
    assert resumed.finetuned.files == straight.finetuned.files
    assert resumed.losses == straight.losses


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name == "flyp" else SLOW) for name in NAMES])
def test_each_runs_in_bf16_near_what_it_does_in_fp32(name, shapes, tmp_path):
    exact, rough = (
        train(shapes, tmp_path / precision, name, steps=1, mixed_precision=precision) for precision in ("no", "bf16")
    )
    assert rough.losses[0] == pytest.approx(exact.losses[0], rel=0.1, abs=0.1)
    assert rough.finetuned.files != exact.finetuned.files


@pytest.mark.slow
def test_two_processes_train_every_objective_as_one_does_but_for_rounding(shapes, tmp_path, monkeypatch):
    words = ("-m", "tests.training.objectives.every", shapes)
    assert together(2, *words, tmp_path / "two", monkeypatch=monkeypatch) == 0
    from tests.training.objectives.every import train_all

    train_all(shapes, tmp_path / "one")
    losses = [json.loads((tmp_path / count / "losses.json").read_text()) for count in ("one", "two")]
    for name in NAMES:
        assert losses[1][name] == pytest.approx(losses[0][name], rel=1e-3), name
        one, two = (Store(tmp_path / count / name) for count in ("one", "two"))
        alone, shared = (load_weights(store, store.find("finetuned")) for store in (one, two))
        begun = load_weights(one, one.parents(one.find("finetuned"))[0])
        # Where a gradient is next to nothing, as that of a bias of keys, Adam makes steps of rounding.
        assert distance(shared, alone) < 0.01 * distance(alone, begun), name


def distance(weights, others):
    return sum(float((weights[name] - others[name]).square().sum()) for name in weights) ** 0.5


def test_settings_are_given_by_name_and_what_is_off_is_said(shapes, tmp_path):
    plain, heavy = (
        train(shapes, tmp_path / str(number), "l2-sp", steps=3, objective_param=given).finetuned
        for number, given in enumerate(((), ("weight=100", "lipsum.texts=3")))
    )
    assert plain.files != heavy.files
    assert list(heavy.config["objective_param"]) == ["weight=100", "lipsum.texts=3"]
    for name, given, reason in (
        ("l2-sp", "beta=1", "the objective l2-sp has no setting 'beta'"),
        ("l2-sp", "weight=much", "the setting weight of l2-sp is a number, not 'much'"),
        ("lipsum", "texts=1.5", "the setting texts of lipsum is a whole number, not '1.5'"),
        ("lipsum", "weight=-1", "the setting weight of lipsum must not be -1"),
        ("lipsum", "texts=0", "the setting texts of lipsum must not be 0"),
        ("lipsum", "length=0", "the setting length of lipsum must not be 0"),
        ("distill", "temperature=0", "the setting temperature of distill must not be 0"),
        ("distill", "classes=none", "the setting classes of distill is all, task, imagenet, not 'none'"),
        ("cross-entropy", "weight=1", "the objective cross-entropy has no setting 'weight'"),
        ("cross-entropy", "lipsum.weigth=1", "the objective lipsum has no setting 'weigth'"),
    ):
        with pytest.raises(UsageError, match=reason):
            train(shapes, tmp_path / "none", name, objective_param=(given,))
    with pytest.raises(UsageError, match="objective-param is NAME=VALUE, not 'weight'"):
        train(shapes, tmp_path / "none", "l2-sp", objective_param=("weight",))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("flyp", {"label_smoothing": 0.1}, "flyp compares each image with the prompts of its batch"),
        ("flyp", {"weights": "balanced"}, "flyp compares each image with the prompts of its batch"),
        ("l2-sp", {"lora": 2}, "l2-sp keeps weights near the start, and lora trains factors"),
        ("l2-sp", {"wd": 0.3}, "l2-sp takes the place of weight decay, and --wd is 0.3"),
        ("lipsum", {"distill_on": "Colors"}, "lipsum takes no unlabelled images"),
        ("lipsum", {"objective_param": ("length=31",)}, "texts of 31 random tokens do not fit between the ends of 32"),
        ("cross-entropy", {"freeze": ("9",)}, "the image encoder has the blocks 0 to 4, and --freeze names 9"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_first_step(name, settings, reason, shapes, tmp_path):
    progress = Notes()
    with pytest.raises(UsageError, match=reason):
        train(shapes, tmp_path / "store", name, progress, **settings)
    assert not any("fine-tuning" in str(each) for each in progress.notes)


def test_the_published_checkpoint_is_the_parent_of_each_and_its_settings_are_recorded(shapes, tmp_path):
    done = [train(shapes, tmp_path / "store", name, steps=1) for name in ("cross-entropy", "lipsum")]
    assert done[0].zeroshot.id == done[1].zeroshot.id
    assert "objective" not in done[0].finetuned.config
    assert done[1].finetuned.config["objective"] == "lipsum"
