"""Trainings that are stopped, killed or repeated: the weights are those of one that nobody interrupted."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.samples import Notes, draw_folder
from wisepatch import ModelConfig, Store, TrainConfig
from wisepatch.config import EvalConfig
from wisepatch.errors import DataError, Stopped, StoreError, TrainingError, UsageError
from wisepatch.store.runs import Run, read_log, unfinished_runs
from wisepatch.training import finetuning, resume
from wisepatch.training.resume import Position, States
from wisepatch.workflows.patching import finetune_watched, patch

DEMO = ModelConfig("demo", "")
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
SHORT = {"steps": 7, "batch_size": 5, "lr": 1e-2, "warmup": 0, "save_every": 0}  # 12 images: three batches an epoch


def train(task, store, fresh=False, progress=None, **settings):
    config = TrainConfig.with_defaults(str(task), **SHORT | settings)
    return finetune_watched(config, DEMO, Store(store), Path("no data folder is needed"), progress, fresh=fresh)


@pytest.fixture
def stop_at(monkeypatch):
    """``stop_at(3, ...)`` sends a signal while the third batch is trained on, counted over everything that follows."""
    calls, original = [], finetuning.learning_rate

    def prepare(*batches, number=signal.SIGINT):
        calls.clear()

        def learning_rate(*given):
            calls.append(given)
            if len(calls) in batches:
                os.kill(os.getpid(), number)
            return original(*given)

        monkeypatch.setattr(finetuning, "learning_rate", learning_rate)

    return prepare


CASES = {
    "in an epoch": ((2,), {}),
    "at the end of an epoch": ((3,), {}),
    "after the first step": ((1,), {}),
    "twice in a row": ((2, 4), {}),
    "between two batches of a step": ((3,), {"grad_accumulation": 2}),
    "with a trained head": ((4,), {"head": "trained"}),
    "with the head alone": ((4,), {"freeze_encoder": True}),
    "with processes that load images": ((4,), {"workers": 2}),
    "in bf16": ((2,), {"mixed_precision": "bf16"}),
    "with validation": ((4,), {"eval_every": 1.0}),
    "keeping the best": ((5,), {"keep_best": "top1"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_training_that_was_stopped_goes_on_to_the_same_weights(shapes, tmp_path, stop_at, case):
    batches, settings = CASES[case]
    straight = train(shapes, tmp_path / "straight", **settings)
    stop_at(*batches)
    for _ in batches:
        with pytest.raises(Stopped) as stopped:
            train(shapes, tmp_path / "stopped", **settings)
        assert "the same command goes on from there" in stopped.value.__notes__[0]
    resumed = train(shapes, tmp_path / "stopped", **settings)
    assert resumed.finetuned.files == straight.finetuned.files
    assert resumed.finetuned.id == straight.finetuned.id
    assert resumed.losses == straight.losses
    logs = [read_log(next((tmp_path / name / "runs").glob("*/log.jsonl"))) for name in ("straight", "stopped")]
    clocked = [[{k: v for k, v in entry.items() if k != "images_per_second"} for entry in log] for log in logs]
    assert clocked[0] == clocked[1]


def test_attacks_that_are_drawn_anew_each_epoch_go_on_with_the_epoch(shapes, tmp_path, stop_at):
    straight = train(f"typo:{shapes}", tmp_path / "straight")
    stop_at(5)
    with pytest.raises(Stopped):
        train(f"typo:{shapes}", tmp_path / "stopped")
    assert train(f"typo:{shapes}", tmp_path / "stopped").finetuned.id == straight.finetuned.id


def test_random_layers_draw_what_they_would_have_drawn(shapes, tmp_path, stop_at, monkeypatch):
    """The random state belongs to what is saved: a tower that drops features at random tells."""
    original = finetuning.freeze

    def freeze(config, classifier):
        classifier.visual.register_forward_hook(
            lambda tower, _, features: torch.nn.functional.dropout(features, 0.5, tower.training)
        )
        return original(config, classifier)

    monkeypatch.setattr(finetuning, "freeze", freeze)
    straight = train(shapes, tmp_path / "straight")
    stop_at(4)
    with pytest.raises(Stopped):
        train(shapes, tmp_path / "stopped")
    torch.rand(7)
    assert train(shapes, tmp_path / "stopped").finetuned.id == straight.finetuned.id


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_to_stop_give_their_number_and_the_handlers_back(shapes, tmp_path, stop_at, number):
    before = signal.getsignal(number)
    stop_at(2, number=number)
    with pytest.raises(Stopped) as stopped:
        train(shapes, tmp_path / "store")
    assert stopped.value.number == number
    assert signal.getsignal(number) is before
    (run,) = unfinished_runs(tmp_path / "store")
    assert run.step == 2
    assert run.identity["config"]["task"] == str(shapes)


def test_a_signal_to_save_saves_and_goes_on(shapes, tmp_path, stop_at, monkeypatch):
    saved, original = [], States.save
    monkeypatch.setattr(States, "save", lambda self, at, best: (saved.append(at.step), original(self, at, best)))
    stop_at(2, 5, number=signal.SIGUSR1)
    done = train(shapes, tmp_path / "store")
    assert saved == [2, 5]
    assert done.finetuned.kind == "finetuned"


def test_a_second_signal_stops_at_once(shapes, tmp_path, monkeypatch):
    def twice(*_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(finetuning, "learning_rate", twice)
    progress = Notes()
    with pytest.raises(Stopped):
        train(shapes, tmp_path / "store", progress=progress)
    assert not unfinished_runs(tmp_path / "store")
    assert "stopping after this step" in progress.notes[-1]


def test_states_are_saved_as_often_as_asked_and_the_last_two_are_kept(shapes, tmp_path, monkeypatch):
    class CrashError(Exception):
        pass

    def crash(self, outcome):
        raise CrashError

    monkeypatch.setattr(Run, "finish", crash)
    with pytest.raises(CrashError):
        train(shapes, tmp_path / "store", save_every=2)
    (folder,) = (tmp_path / "store" / "runs").glob("[!.]*")
    assert [path.name for path in sorted(folder.glob("state-*"))] == ["state-000000004", "state-000000006"]
    monkeypatch.undo()
    progress = Notes()
    train(shapes, tmp_path / "store", progress=progress, save_every=3)  # how often is no part of what a training is
    assert "going on after step 6 of 7" in " ".join(progress.notes)
    assert sorted(path.name for path in folder.iterdir()) == ["finished.json", "log.jsonl", "run.json"]


def test_a_finished_training_is_not_repeated_unless_asked(shapes, tmp_path, monkeypatch):
    first = train(shapes, tmp_path / "store")
    progress = Notes()
    with monkeypatch.context() as patched:
        patched.setattr(finetuning, "batches_from", None)
        again = train(shapes, tmp_path / "store", progress=progress)
    assert (again.finetuned.id, again.zeroshot.id, again.losses) == (
        first.finetuned.id,
        first.zeroshot.id,
        first.losses,
    )
    assert "finished already" in progress.notes[-1]
    assert train(shapes, tmp_path / "store", fresh=True).finetuned.id == first.finetuned.id
    Store(tmp_path / "store").remove([first.finetuned])
    assert train(shapes, tmp_path / "store").finetuned.id == first.finetuned.id  # what was removed is made again


def test_other_settings_never_take_the_state(shapes, tmp_path, stop_at):
    stop_at(2)
    with pytest.raises(Stopped):
        train(shapes, tmp_path / "store")
    straight = train(shapes, tmp_path / "straight", lr=2e-2)
    assert train(shapes, tmp_path / "store", lr=2e-2).finetuned.id == straight.finetuned.id
    assert len(unfinished_runs(tmp_path / "store")) == 1


def test_changed_images_are_refused_by_name_and_nothing_is_lost(shapes, tmp_path, stop_at):
    stop_at(2)
    with pytest.raises(Stopped):
        train(shapes, tmp_path / "store")
    shutil.copytree(shapes, tmp_path / "aside")
    for path in shapes.rglob("*.png"):
        path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DataError, match=r"images of shapes have changed .*/runs/") as error:
        train(shapes, tmp_path / "store")
    assert "--fresh" in error.value.hint
    assert unfinished_runs(tmp_path / "store")
    shutil.copytree(tmp_path / "aside", shapes, dirs_exist_ok=True)
    assert train(shapes, tmp_path / "store").finetuned.id == train(shapes, tmp_path / "straight").finetuned.id


def test_fresh_forgets_the_state(shapes, tmp_path, stop_at):
    stop_at(2)
    with pytest.raises(Stopped):
        train(shapes, tmp_path / "store")
    progress = Notes()
    train(shapes, tmp_path / "store", fresh=True, progress=progress)
    assert not any("going on" in note for note in progress.notes)


@pytest.mark.parametrize(
    "file", ["model.safetensors", "optimizer.bin", "random_states_0.pkl", "position.json", "entry.json"]
)
def test_a_damaged_state_is_said_and_an_older_one_taken(shapes, tmp_path, stop_at, file):
    straight = train(shapes, tmp_path / "straight")
    stop_at(2, 3)
    for _ in range(2):
        with pytest.raises(Stopped):
            train(shapes, tmp_path / "store")
    newest = sorted((tmp_path / "store" / "runs").glob("*/state-*"))[-1]
    data = bytearray((newest / file).read_bytes())
    data[len(data) // 2] ^= 4
    (newest / file).write_bytes(bytes(data))
    progress = Notes()
    resumed = train(shapes, tmp_path / "store", progress=progress)
    assert resumed.finetuned.id == straight.finetuned.id
    said = " ".join(progress.notes)
    assert f"state-{3:09d}" in said
    assert "going on after step 2" in said


def test_a_state_holds_no_pickle_that_could_run(shapes, tmp_path, stop_at):
    """What a state holds beside tensors is loaded with weights alone: a payload under a right hash does nothing."""
    stop_at(2)
    with pytest.raises(Stopped):
        train(shapes, tmp_path / "store")
    (state,) = (tmp_path / "store" / "runs").glob("*/state-*")

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"state": Payload(), "param_groups": []}, state / "optimizer.bin")
    (state / "entry.json").unlink()
    from wisepatch.store.cache import seal_entry

    seal_entry(state, {})
    with pytest.raises(Exception, match=r"(?i)weights.only|unsupported"):
        train(shapes, tmp_path / "store")
    assert not (tmp_path / "owned").exists()


def test_the_best_weights_on_validation_data_are_kept(shapes, tmp_path, monkeypatch):
    """A training that gets worse: its end is the best validation, not the last."""
    from wisepatch.evaluation.validation import Validation

    scores, seen = iter([0.2, 0.9, 0.4, 0.3]), []

    def watch(clip, classifier, epoch):
        seen.append({name: tensor.clone() for name, tensor in classifier.visual.state_dict().items()})
        return Validation("looked", {}, next(scores))

    config = TrainConfig.with_defaults(str(shapes), **SHORT | {"steps": 12, "keep_best": "top1"})
    progress = Notes()
    done = finetuning.finetune(config, DEMO, Store(tmp_path / "store"), shapes, progress, watch)
    weights = Store(tmp_path / "store").read(done.finetuned)
    assert all(torch.equal(weights[f"visual.{name}"], tensor) for name, tensor in seen[1].items())
    assert not all(torch.equal(seen[1][name], seen[3][name]) for name in seen[1])
    assert "keeping the weights of epoch 2.0" in " ".join(progress.notes)


def test_patience_ends_a_training_that_gets_no_better(shapes, tmp_path):
    from wisepatch.evaluation.validation import Validation

    scores = iter([0.5, 0.6, float("nan"), 0.6, 0.9])
    config = TrainConfig.with_defaults(str(shapes), **SHORT | {"steps": 30, "keep_best": "top1", "patience": 2})
    progress = Notes()
    finetuning.finetune(
        config, DEMO, Store(tmp_path / "store"), shapes, progress, lambda *_: Validation("looked", {}, next(scores))
    )
    assert "stopping after step 12: nothing better since epoch 2.0" in progress.notes
    assert next(scores) == 0.9


def test_the_score_follows_the_direction_of_the_metric_and_the_data(shapes, tmp_path):
    """attack_success is better when lower, and needs images that are written on."""
    progress = Notes()
    train(
        f"typo:{shapes}", tmp_path / "store", progress=progress, keep_best="attack_success", steps=1, eval_every=0.001
    )
    assert any("attack_success 0." in note for note in progress.notes)
    at = Position()
    assert at.is_better(-0.9, 1.0)
    assert at.is_better(-0.1, 2.0)
    assert not at.is_better(-0.5, 3.0)
    assert (at.best_epoch, at.validations_since_best) == (2.0, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep_best": "nonsense"}, "unknown metric 'nonsense'"),
        ({"keep_best": "worst_group"}, "worst_group needs groups of images"),
    ],
)
def test_a_best_that_cannot_be_told_is_refused_before_the_training(shapes, tmp_path, settings, message):
    with pytest.raises(UsageError, match=message):
        train(shapes, tmp_path / "store", **settings)
    assert not (tmp_path / "store").exists()


def test_patience_needs_a_metric():
    with pytest.raises(UsageError, match="patience needs keep-best"):
        TrainConfig.with_defaults("Shapes", patience=2)


def test_patch_goes_on_with_the_sweep_of_a_finished_training(shapes, tmp_path, monkeypatch):
    config = TrainConfig.with_defaults(str(shapes), **SHORT)
    store = Store(tmp_path / "store")
    trained = finetune_watched(config, DEMO, store, shapes)
    with monkeypatch.context() as patched:
        patched.setattr(finetuning, "batches_from", None)
        done = patch(config, DEMO, store, shapes, alphas=[0, 1], settings=EvalConfig(workers=0))
    assert (done.run.finetuned.id, done.run.losses) == (trained.finetuned.id, trained.losses)


def command(shapes, *words):
    return [
        sys.executable, "-m", "wisepatch", "finetune", "--model", "demo", "--task", str(shapes), "--batch-size", "5",
        "--lr", "1e-2", "--warmup", "0", *words,
    ]  # fmt: skip


def killed(words, folder, number, enough):
    """Start a program, send it a signal once there is enough of its run, and wait for its end."""
    with (folder / "said.txt").open("a") as said:
        program = subprocess.Popen(words, cwd=folder, stderr=said, stdout=said, env=ONE_THREAD)
    deadline = time.monotonic() + 120
    while program.poll() is None and not enough():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    program.send_signal(number)
    return program.wait(timeout=300)


@pytest.mark.slow
def test_a_program_that_is_killed_goes_on_and_says_so(shapes, tmp_path):
    """SIGKILL while states are written, then SIGTERM (exit code 143), then to the end: as if nothing had been."""
    steps, store = ("--steps", "30", "--save-every", "2"), tmp_path / "wisepatch-store"

    def states():
        return sorted(store.glob("runs/*/state-*"))

    assert killed(command(shapes, *steps), tmp_path, signal.SIGKILL, states) == -signal.SIGKILL
    before = states()[-1:]
    code = killed(command(shapes, *steps), tmp_path, signal.SIGTERM, lambda: states()[-1:] > before)
    assert code == 128 + signal.SIGTERM
    assert "the same command goes on from there" in (tmp_path / "said.txt").read_text()
    quiet = {"cwd": tmp_path, "capture_output": True, "text": True, "check": True, "env": ONE_THREAD}
    last = subprocess.run(command(shapes, *steps, "--json"), **quiet)
    assert "going on after step" in last.stderr
    finetuned = json.loads(last.stdout.splitlines()[1])
    again = subprocess.run([*command(shapes, *steps, "--json"), "--store", "straight"], **quiet)
    assert finetuned["files"] == json.loads(again.stdout.splitlines()[1])["files"]


@pytest.mark.slow
def test_two_processes_that_are_killed_go_on_to_the_same_weights(shapes, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    ends = []
    for name, interrupted in (("straight", False), ("killed", True)):
        store = tmp_path / name
        words = [*launch, *command(shapes, "--steps", "20", "--save-every", "2", "--store", str(store))[1:]]
        if interrupted:
            killed(words, tmp_path, signal.SIGTERM, lambda store=store: list(store.glob("runs/*/state-*")))
        done = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=300)
        assert ("going on after step" in done.stderr) == interrupted
        ends.append(Store(store).find("finetuned").files)
    assert ends[0] == ends[1]


def test_the_same_training_twice_at_once_is_done_once(tmp_path):
    shapes = draw_folder(tmp_path / "shapes")
    words = command(shapes, "--steps", "10", "--json")
    programs = [
        subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [program.communicate(timeout=300) for program in programs]
    assert [program.returncode for program in programs] == [0, 0], told
    assert len({json.loads(out.splitlines()[1])["id"] for out, _ in told}) == 1
    assert sum("finished already" in err for _, err in told) == 1


def test_a_state_that_cannot_be_saved_is_said_and_ends_no_training(shapes, tmp_path, stop_at, monkeypatch):
    straight = train(shapes, tmp_path / "straight")
    progress = Notes()

    def refuse(self, folder):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed\nmore")

    with monkeypatch.context() as patched:
        patched.setattr("accelerate.Accelerator.save_state", refuse)
        done = train(shapes, tmp_path / "store", save_every=3, progress=progress)
        stop_at(2)
        with pytest.raises(Stopped) as stopped:
            train(shapes, tmp_path / "other")
    assert done.finetuned.id == straight.finetuned.id
    reason = "cannot be saved (PytorchStreamWriter failed writing file data/0: file write failed)"
    assert f"the state after step 3 {reason}; the training goes on" in progress.notes
    assert reason in stopped.value.__notes__[0]
    assert train(shapes, tmp_path / "other").finetuned.id == straight.finetuned.id


@pytest.mark.parametrize("save_every", [0, 2])
def test_room_on_the_disk_is_looked_for_before_the_training(shapes, tmp_path, monkeypatch, save_every):
    asked = []

    def refuse(path, size, hint):
        asked.append((path, size))
        raise StoreError("no room", hint)

    monkeypatch.setattr(resume, "check_room", refuse)
    with pytest.raises(StoreError) as error:
        train(shapes, tmp_path / "store", save_every=save_every)
    ((path, size),) = asked
    checkpoint = (tmp_path / "store").glob("checkpoints/*/model.safetensors")
    least = next(checkpoint).stat().st_size
    assert path == tmp_path / "store"
    assert 0.9 * least < size < (1.1 if save_every == 0 else 20) * least
    assert ("--save-every 0" in error.value.hint) == bool(save_every)


def test_the_list_of_the_store_tells_what_stopped(shapes, tmp_path, stop_at, cli):
    stop_at(2)
    with pytest.raises(Stopped):
        train(shapes, tmp_path / "wisepatch-store")
    said = cli("store", "list").stderr
    assert f"stopped: the training of {shapes} after step 2; its command goes on" in said
    refused = cli("store", "rm", "zeroshot")
    assert refused.exit_code == 1
    assert "is the start of a training that stopped" in refused.stderr
    assert cli("store", "gc").exit_code == 0
    assert unfinished_runs(tmp_path / "wisepatch-store")
    assert cli("store", "gc", "--runs").exit_code == 0
    assert not unfinished_runs(tmp_path / "wisepatch-store")
    assert cli("store", "rm", "zeroshot").exit_code == 0


def test_a_training_whose_loss_is_not_finite_leaves_no_state_of_it(shapes, tmp_path):
    with pytest.raises(TrainingError, match="the loss is"):
        train(shapes, tmp_path / "store", lr=1e30, steps=20, save_every=1)
    for state in (tmp_path / "store" / "runs").glob("*/state-*"):
        assert json.loads((state / "position.json").read_text())["step"] < 10
