"""Several processes do what one does: the same numbers to the bit, one writer, and an end where one of them fails."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.samples import draw_folder
from tests.shared_work import KINDS, work
from wisepatch import ModelConfig, Store, TrainConfig, find_task, finetune, load_weights, process_group
from wisepatch.cli import processes
from wisepatch.cli.processes import start_processes
from wisepatch.datasets import loading
from wisepatch.datasets.loading import same_for_all
from wisepatch.datasets.training_batches import Plan, training_batches
from wisepatch.errors import DataError, StoreError, UsageError

ROOT = Path(__file__).parents[1]
SLOW = pytest.mark.slow


def together(count, *command, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    return start_processes(count, [sys.executable, *map(str, command)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, finished):
    """A PAINT run, a linear probe, and a task with fewer batches than there are processes."""
    root = tmp_path_factory.mktemp("shared")
    shutil.copytree(finished[0] / "store", root / "store")
    draw_folder(root / "few" / "test", per_class=1)
    settings = {"steps": 2, "epochs": None, "batch_size": 8, "lr": 1e-2, "warmup": 0, "freeze_encoder": True}
    config = TrainConfig.with_defaults(str(finished[0] / "shapes"), **settings)
    finetune(config, ModelConfig("demo", ""), Store(root / "probes"), root)
    return root


@pytest.fixture(scope="module")
def alone(folder, finished):
    """What one process makes of it, under the same path, as paths are parts of names; the folder is as before after that."""
    return of_processes(folder, lambda: work(folder, str(finished[0] / "shapes")))


def of_processes(folder, run):
    before = folder.with_name("before")
    shutil.copytree(folder, before)
    try:
        run()
        result = contents(folder), {kind: weights(folder / kind) for kind in KINDS}
        done = [json.loads(path.read_text()) for path in sorted(folder.glob("done-*.json"))]
        return *result, json.loads((folder / "losses.json").read_text()), done
    finally:
        shutil.rmtree(folder)
        before.rename(folder)


def contents(folder):
    """All that measuring has written, but for times, names of runs, and files of training."""
    files = {}
    for store in ("store", "probes"):
        for path in (folder / store).rglob("*"):
            if path.suffix in (".safetensors", ".parquet", ".npy"):
                files[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
        lines = (folder / store / "results.jsonl").read_text().splitlines()
        files[store] = [
            {k: v for k, v in json.loads(line).items() if k not in ("time", "run", "sha256")} for line in lines
        ]
        files[f"{store} checkpoints"] = sorted(path.name for path in (folder / store / "checkpoints").glob("[!.]*"))
    return files


def weights(store):
    return load_weights(Store(store), Store(store).find("finetuned"))


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=SLOW)])
def test_several_processes_measure_what_one_does_to_the_bit_and_train_the_same_but_for_rounding(
    folder, finished, alone, count, monkeypatch
):
    def run():
        words = ("-m", "tests.shared_work", folder, finished[0] / "shapes")
        assert together(count, *words, monkeypatch=monkeypatch) == 0

    found, trained, losses, done = of_processes(folder, run)
    assert found == alone[0]
    kinds = {name.split("/")[2] for name in found if name.startswith("store/cache/")}
    assert kinds == {"heads", "fisher", "pixels"}
    assert any(name.startswith("probes/cache/features/") for name in found)
    assert len(found["store"]) == 5
    assert len(done) == count
    for kind, total in alone[3][0].items():
        shares = [each.get(kind, 0) for each in done]
        assert sum(shares) == total  # each once
        assert max(shares) < total
    for kind in KINDS:
        for name, tensor in alone[1][kind].items():
            assert torch.allclose(trained[kind][name], tensor, rtol=1e-3, atol=1e-4), (kind, name)
        assert losses[kind][0] == pytest.approx(alone[2][kind][0], rel=1e-3)
        assert losses[kind][1] == alone[2][kind][1]


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        pytest.param("", 0, "", marks=SLOW),
        ("error", 1, "error: image 7 cannot be read\nhint: replace it\n"),
        pytest.param("error while computing", 1, "error: image 7 cannot be read\nhint: replace it\n", marks=SLOW),
        pytest.param("everywhere", 1, "error: image 7 cannot be read\nhint: replace it\n", marks=SLOW),
        pytest.param("killed", 137, "error: another of the 2 processes ended without a word: ", marks=SLOW),
        pytest.param("bug", 1, "ZeroDivisionError\n", marks=SLOW),
        pytest.param("no device", 2, "error: there is no device", marks=SLOW),
    ],
)
def test_a_process_that_fails_ends_all_with_its_reason_said_once(how, code, said, monkeypatch, capfd):
    monkeypatch.setenv("HOW", how)
    assert together(2, "-m", "tests.failing", monkeypatch=monkeypatch) == code
    out, err = capfd.readouterr()
    assert out == {"": "done\n", "error while computing": "at work\n"}.get(how, "")
    assert err.count("error: ") + err.count("Traceback (most") == bool(how)
    assert said in err
    if how != "bug":
        assert "Traceback" not in err
        assert len(err.splitlines()) == (2 if how else 0)


def test_of_processes_that_end_at_once_the_killed_one_is_why():
    ended = [SimpleNamespace(returncode=code, poll=lambda code=code: code) for code in (0, 1, -9, 1)]
    assert processes._wait(ended) == 137


def test_parting_leaves_no_thread_that_would_abort_an_ending_process(monkeypatch, tmp_path):
    code = "import sys, threading, wisepatch.process_group as group; group.join(); group.leave()"
    code += "; open(sys.argv[1] + group.os.environ['RANK'], 'w').write(str(threading.active_count()))"
    assert together(2, "-c", code, tmp_path / "threads", monkeypatch=monkeypatch) == 0
    assert [(tmp_path / f"threads{rank}").read_text() for rank in range(2)] == ["1", "1"]


STARTED = "import sys; from wisepatch.cli.processes import start_processes; sys.exit(start_processes(2, sys.argv[1:]))"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 1), (signal.SIGKILL, -9, 0)],
    ids=["SIGINT", "SIGTERM", "SIGKILL"],
)
def test_a_signal_to_the_process_that_started_others_ends_them_too(number, code, said, monkeypatch, tmp_path):
    monkeypatch.setenv("HOW", "long")
    command = [sys.executable, "-c", STARTED, sys.executable, "-m", "tests.failing"]
    with (tmp_path / "err").open("wb") as err, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err) as started:
        assert started.stdout.readline() == b"at work\n"
        started.send_signal(number)
        assert started.stdout.read() == b""  # when all that could write there have ended
        assert started.wait() == code
    assert (tmp_path / "err").read_text().count("interrupted: ") == said


def launches(launcher, port, *words):
    """The commands that start ``wisepatch`` in two processes: by wisepatch itself, or one for each of two nodes."""
    bins, node = Path(sys.executable).parent, ("-m", "wisepatch", *words)
    if launcher == "processes":
        return [[sys.executable, *node, "--processes", "2"]]
    if launcher == "torchrun":
        options = ("--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}")
        return [[bins / "torchrun", *options, f"--node-rank={rank}", *node] for rank in range(2)]
    options = ("--multi_gpu", "--num_processes=2", "--num_machines=2", "--main_process_ip=127.0.0.1")
    options = (*options, f"--main_process_port={port}")
    return [[bins / "accelerate", "launch", *options, f"--machine_rank={rank}", *node] for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["processes", "torchrun", "accelerate"])
def test_launchers_on_one_machine_or_two_give_the_lines_that_one_process_gives(launcher, run_store, shapes, cli):
    words = ["eval", "zeroshot", "finetuned", "--task", str(shapes), "--batch-size", "2", "--json"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = [
        subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)})
        for command in launches(launcher, port, *words, "--store", str(run_store.root))
    ]
    try:
        printed = [process.communicate(timeout=300)[0].decode() for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert [process.returncode for process in started] == [0] * len(started)
    assert not any(printed[1:])

    def rows(text):
        return [{k: v for k, v in json.loads(line).items() if k not in ("time", "run")} for line in text.splitlines()]

    assert rows(printed[0]) == rows(cli(*words).stdout)
    lines = run_store.results.read_text().splitlines()
    assert len(lines) == 4  # two checkpoints, twice


def test_in_one_process_nothing_is_started(tmp_path):
    code = "import torch, wisepatch.process_group as g; g.join(); g.on_main(int); g.from_all(1); g.leave()"
    code += "; assert not torch.distributed.is_initialized(); assert list(g.deal([1, 2])) == list(g.to_main([1, 2], 2)) == [1, 2]"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.fixture
def as_process(monkeypatch):
    """A function that makes this process look like one of several, which do not talk to each other."""

    def be(rank, size):
        for name, value in {"WORLD_SIZE": size, "RANK": rank, "LOCAL_RANK": rank}.items():
            monkeypatch.setenv(name, str(value))

    return be


@pytest.mark.parametrize(("images", "batch_size", "processes"), [(13, 6, 2), (13, 6, 3), (12, 4, 4), (9, 5, 5)])
def test_each_image_of_a_training_batch_is_seen_once_and_weighs_the_same(as_process, images, batch_size, processes):
    samples = [(torch.tensor(float(index)), index) for index in range(images)]

    def batches(count, rank):
        as_process(rank, count)
        return list(training_batches(samples, Plan(images, batch_size, seed=3), 1, 4, torch.device("cpu")))

    whole = batches(1, 0)
    shares = [batches(processes, rank) for rank in range(processes)]
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        seen = [label for part in parts if part.weight for label in part.labels.tolist()]
        assert sorted(seen) == sorted(batch.labels.tolist())
        assert batch.weight == 1
        mean = sum(part.weight * part.images.mean() for part in parts) / processes
        assert mean == pytest.approx(float(batch.images.mean()), rel=1e-6)


def test_a_batch_with_fewer_images_than_processes_is_refused(as_process):
    as_process(0, 4)
    with pytest.raises(UsageError, match="a batch of 3 images cannot be shared by 4 processes") as caught:
        Plan(9, 3, seed=0)
    assert "--batch-size" in caught.value.hint


def test_data_that_is_not_the_same_for_all_processes_is_an_error_that_names_them(
    as_process, monkeypatch, shapes, tmp_path
):
    split = find_task(str(shapes)).dataset.split("train", tmp_path)
    as_process(0, 2)
    for other, said in ((3, "12 images for process 0"), (12, "or other labels, for process 1 .node b.")):
        monkeypatch.setattr(loading, "from_all", lambda value, other=other: [value, (other, "", "node b")])
        with pytest.raises(DataError, match=said) as caught:
            same_for_all(split)
        assert "--data" in caught.value.hint
    monkeypatch.setattr(loading, "from_all", lambda value: [value, value])
    assert same_for_all(split) is split


def test_a_store_that_another_machine_does_not_see_is_an_error_that_names_it(as_process, monkeypatch, tmp_path):
    process_group.check_seen([tmp_path / "nowhere"])  # of one process nobody asks
    as_process(1, 2)
    monkeypatch.setattr(process_group, "from_all", lambda value: [True, value])
    process_group.check_seen([tmp_path])
    with pytest.raises(StoreError, match=r"process 1 does not see .*nowhere") as caught:
        process_group.check_seen([tmp_path, tmp_path / "nowhere"])
    assert "shared file system" in caught.value.hint


def test_what_the_main_process_made_is_read_by_the_others_and_never_made_by_one_alone(as_process, monkeypatch):
    as_process(1, 2)
    made, announced = [], iter([True, False, True, False])
    monkeypatch.setattr(process_group, "_meeting", SimpleNamespace(group="group"))
    monkeypatch.setattr(process_group, "on_main", lambda _: next(announced))
    assert process_group.made_together(lambda make: "read", lambda: made.append("share")) == "read"
    assert made == ["share"]
    with pytest.raises(StoreError, match="process 1 does not see what the main process has put into the store"):
        process_group.made_together(lambda make: make(), lambda: made.append("share"))
    assert made == ["share", "share"]


@pytest.mark.parametrize(("rank", "local", "before"), [(0, 0, 0), (2, 0, 1), (1, 1, 2), (3, 1, 2)])
def test_the_main_process_goes_first_then_one_of_each_machine_then_the_rest(
    as_process, monkeypatch, rank, local, before
):
    as_process(rank, 4)
    monkeypatch.setenv("LOCAL_RANK", str(local))
    waits = []
    monkeypatch.setattr(process_group, "from_all", lambda _: waits.append("wait"))
    with process_group.main_first():
        waits.append("work")
    assert waits == ["wait"] * before + ["work"] + ["wait"] * (2 - before)


def test_accelerate_that_counts_other_processes_is_refused(as_process):
    as_process(0, 1)
    process_group.check_size(1)
    with pytest.raises(UsageError, match="Accelerate was started in 4 processes, and of them 1 are known"):
        process_group.check_size(4)
