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

ALONE = "import sys; from pathlib import Path; from tests.shared_work import work; work(Path(sys.argv[1]))"


def together(count, *command, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    return start_processes(count, [sys.executable, *map(str, command)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, finished):
    """Images of which neither batches nor processes are whole parts, a PAINT run and a linear probe."""
    root = tmp_path_factory.mktemp("shared")
    draw_folder(root / "images" / "train", per_class=7)
    for split in ("val", "test"):
        draw_folder(root / "images" / split, per_class=3)
    for name, settings in (("store", {}), ("probes", {"freeze_encoder": True, "epochs": None})):
        config = TrainConfig.with_defaults(str(root / "images"), steps=2, batch_size=8, lr=1e-2, warmup=0, **settings)
        finetune(config, ModelConfig("demo", ""), Store(root / name), root)
    return root


@pytest.fixture(scope="module")
def alone(folder):
    """What one process makes of it, under the same path, as paths are parts of names; the folder is as before after that."""
    return of_processes(folder, lambda: work(folder))


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


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_measure_what_one_does_to_the_bit_and_train_the_same_but_for_rounding(
    folder, alone, count, monkeypatch
):
    def run():
        assert together(count, "-m", "tests.shared_work", folder, monkeypatch=monkeypatch) == 0

    found, trained, losses = of_processes(folder, run)
    assert found == alone[0]
    kinds = {name.split("/")[2] for name in found if name.startswith("store/cache/")}
    assert kinds == {"heads", "fisher", "pixels"}
    assert any(name.startswith("probes/cache/features/") for name in found)
    assert len(found["store"]) == 6
    for kind in KINDS:
        for name, tensor in alone[1][kind].items():
            assert torch.allclose(trained[kind][name], tensor, rtol=1e-3, atol=1e-4), (kind, name)
        assert losses[kind][0] == pytest.approx(alone[2][kind][0], rel=1e-3)
        assert losses[kind][1] == alone[2][kind][1]
