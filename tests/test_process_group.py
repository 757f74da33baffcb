"""Several processes do what one does: the same numbers to the bit, one writer, and an end where one of them fails."""

import hashlib
import json
import shutil
import sys

import pytest
import torch

from tests.samples import draw_folder
from tests.shared_work import KINDS, work
from wisepatch import ModelConfig, Store, TrainConfig, finetune, load_weights
from wisepatch.cli.processes import start_processes

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
        return *result, json.loads((folder / "losses.json").read_text())
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
        files[store] = [{k: v for k, v in json.loads(line).items() if k not in ("time", "run")} for line in lines]
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

    found, trained, losses = of_processes(folder, run)
    assert found == alone[0]
    kinds = {name.split("/")[2] for name in found if name.startswith("store/cache/")}
    assert kinds == {"heads", "fisher", "pixels"}
    assert any(name.startswith("probes/cache/features/") for name in found)
    assert len(found["store"]) == 5
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
    ],
)
def test_a_process_that_fails_ends_all_with_its_reason_said_once(how, code, said, monkeypatch, capfd):
    monkeypatch.setenv("HOW", how)
    assert together(2, "-m", "tests.failing", monkeypatch=monkeypatch) == code
    out, err = capfd.readouterr()
    assert out == ("" if how else "done\n")
    assert err.count("error: ") + err.count("Traceback (most") == bool(how)
    assert said in err
    if how != "bug":
        assert "Traceback" not in err
        assert len(err.splitlines()) == (2 if how else 0)
