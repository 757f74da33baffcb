"""The benchmarks work, and what they claim to be the same is the same, at small size."""

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import harness
from tests.benchmarks.__main__ import WORKLOADS, main
from tests.benchmarks.harness import Bench, Clock, measure

ROOT = Path(__file__).parents[1]
KEYS = {"workload", "variant", "reference_s", "wisepatch_s", "ratio", "agree"}


def job(clock, steps):
    """Some work, and some that is not measured."""
    sum(range(10 * steps))
    with clock:
        return sum(range(steps))


def method(clock):
    return multiprocessing.get_start_method()


def failing(clock):
    raise ValueError("no good")


def fake(bench):
    """A workload that takes no time."""
    sides = {
        name: lambda steps=steps: measure(job, "here", steps=steps) for name, steps in (("r", 200_000), ("w", 2_000))
    }
    found = bench.alternate(sides)
    yield bench.row("sums", found["r"], found["w"], agree=True, aim=2, note="a note", n=3)
    yield bench.row("nothing to compare", note="not here")


def bench(folder, **changes):
    return Bench(**({"workload": "X", "folder": folder, "quick": True, "repeats": 3, "machine": {}} | changes))


def test_help_lists_the_workloads_and_imports_nothing_heavy():
    code = "import sys; from tests.benchmarks.__main__ import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert all(f"  {name} " in done.stdout for name in WORKLOADS)


def test_an_unknown_workload_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["W1", "W99"])
    assert caught.value.code == 2
    assert "no workload W99" in capsys.readouterr().err


def test_every_workload_is_there():
    from importlib import import_module

    for where, _ in WORKLOADS.values():
        module, _, function = where.partition(".")
        assert callable(getattr(import_module(f"tests.benchmarks.{module}"), function))


def test_json_is_one_object_a_row(monkeypatch, capsys):
    monkeypatch.setitem(WORKLOADS, "FAKE", ("fake_workload.fake", "nothing"))
    monkeypatch.setitem(sys.modules, "tests.benchmarks.fake_workload", sys.modules[__name__])
    assert main(["fake", "--json", "--repeats", "1"]) == 0
    said = capsys.readouterr()
    first, second = (json.loads(line) for line in said.out.splitlines())
    assert KEYS <= set(first) == set(second) | {"n"}
    assert first["ratio"] == pytest.approx(first["reference_s"] / first["wisepatch_s"])
    assert first["ratio"] > 1
    assert first["machine"]["cores"] >= 1
    assert second["reference_s"] is second["ratio"] is second["agree"] is None
    assert "round 3 of 3" in said.err  # never fewer than three


def test_the_table_shows_medians_and_what_does_not_agree(monkeypatch, capsys):
    def wrong(bench):
        walls = ((4.0, 1.0), (2.0, 1.0), (9.0, 0.5))
        sides = zip(*(([harness.Measured(wall, 7, 100, None) for wall in pair]) for pair in walls), strict=True)
        yield bench.row("three", *sides, agree=False)

    monkeypatch.setitem(WORKLOADS, "FAKE", ("fake_workload.fake", "nothing"))
    monkeypatch.setitem(
        sys.modules, "tests.benchmarks.fake_workload", type("Module", (), {"fake": staticmethod(wrong)})
    )
    assert main(["FAKE", "--quick"]) == 1
    shown = capsys.readouterr().out
    assert shown.splitlines()[1].split() == ["FAKE", "three", "4", "1", "4", "7", "/", "7", "100", "/", "100", "NO"]
    assert "not the record" in shown


def test_a_workload_that_fails_is_said_and_the_others_go_on(monkeypatch, capsys):
    def broken(bench):
        yield bench.row("before")
        raise RuntimeError("it broke")

    monkeypatch.setitem(WORKLOADS, "FAKE", ("fake_workload.fake", "nothing"))
    monkeypatch.setitem(
        sys.modules, "tests.benchmarks.fake_workload", type("Module", (), {"fake": staticmethod(broken)})
    )
    assert main(["FAKE", "FAKE", "--json"]) == 1
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert said.err.count("FAKE failed: it broke") == 2


def test_sides_alternate(tmp_path):
    order = []
    sides = {name: lambda name=name: order.append(name) or measure(job, "here", steps=1) for name in "abc"}
    bench(tmp_path).alternate(sides)
    assert "".join(order) == "abcbcacab"


def test_a_job_in_a_fresh_process_has_its_own_memory():
    held = bytearray(300_000_000)
    found = measure(job, "fresh", steps=1000)
    assert found.result == 499_500
    assert 0 < found.wall < 60
    assert 5 < found.megabytes < len(held) / 1e6
    with pytest.raises(RuntimeError, match="no good"):
        measure(failing, "fresh")


def test_workers_of_a_measured_job_start_as_in_any_program():
    assert measure(method, "fresh").result == multiprocessing.get_start_method()


def test_a_clock_counts_what_is_within_it():
    clock = Clock()
    for _ in range(2):
        with clock:
            sum(range(500_000))
    assert clock.wall > 0
    assert 0 < clock.cpu < clock.wall + 0.05


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the demo model on two folders of JPEGs: a folder of the store and of the papers' modules, and the tasks."""
    from tests.benchmarks import material

    folder = tmp_path_factory.mktemp("run")
    tasks = [folder / "one", folder / "two"]
    for seed, task in enumerate(tasks):
        material.pictures(Clock(), task, 1, size=(160, 120), seed=seed)
    material.line(Clock(), folder, "demo", tasks)
    return {"folder": folder, "tasks": tasks, "number": 3}


def test_the_papers_sweep_and_ours_say_the_same_of_every_image(run):
    from tests.benchmarks import sweeping

    theirs = measure(sweeping.reference_sweep, "here", workers=0, **run).result
    mine = measure(sweeping.wisepatch_sweep, "here", **run).result
    assert sweeping.differing(theirs, mine) == (0, 60)
    assert sweeping.spread(mine) >= 4  # not one answer to everything
    assert not np.array_equal(mine[str(run["tasks"][0])][0], mine[str(run["tasks"][0])][2])  # nor one for every alpha
    assert sweeping.accuracy(mine) > 0.2


def test_the_papers_linear_sweep_and_ours_say_the_same_with_and_without_cached_features(run, tmp_path):
    from tests.benchmarks import material, sweeping

    material.line(Clock(), tmp_path, "demo", run["tasks"], linear=True)
    settings = run | {"folder": tmp_path}
    said = [
        measure(sweeping.reference_sweep, "here", workers=0, **settings).result,
        *(
            measure(sweeping.reference_sweep, "here", workers=0, freeze_encoder=True, **settings).result
            for _ in range(2)
        ),
        *(measure(sweeping.wisepatch_sweep, "here", forget=forget, **settings).result for forget in (True, False)),
    ]
    assert sweeping.spread(said[0]) >= 4
    assert [sweeping.differing(said[0], other)[0] for other in said] == [0] * 5


def test_the_papers_head_and_ours_are_the_same():
    from tests.benchmarks import head_workload

    settings = {"model": "demo", "classes": ("circle", "a very long name of a class", "star"),
                "templates": ("a photo of a {}.", "{}", "a picture of {article} {} in the style of a poster.")}  # fmt: skip
    theirs = measure(head_workload.reference_head, "here", **settings).result
    mine = measure(head_workload.wisepatch_head, "here", **settings).result
    assert theirs.shape == mine.shape
    assert head_workload.largest_difference(theirs, mine) <= head_workload.TOLERANCE
    assert head_workload.largest_difference(theirs, mine[::-1]) > 100 * head_workload.TOLERANCE


@pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities of TorchVision are deprecated")
def test_decoding_is_measured_on_the_same_images(run, tmp_path):
    from tests.benchmarks import decoding_workload, material

    material.pictures(None, tmp_path / "large", 1, size=(1600, 1200))
    found = {
        how: measure(decoding_workload.read, "here", task=tmp_path / "large", how=how).result.astype(int)
        for how in ("PIL", "torchvision")
    }
    assert {array.shape for array in found.values()} == {(10, 3, 224, 224)}
    for name in ("torchvision",):
        assert 0 < abs(found[name] - found["PIL"]).mean() < 4
    shared = {"folder": run["folder"], "task": run["tasks"][0]}
    decoded = measure(decoding_workload.evaluate, "here", **shared).result
    first = measure(decoding_workload.evaluate_first, "here", **shared).result
    kept = measure(decoding_workload.evaluate, "here", cache_images=True, **shared).result
    assert np.array_equal(decoded, first)
    assert np.array_equal(decoded, kept)
    assert (Path(run["folder"]) / "store" / "cache" / "pixels").is_dir()


def test_the_papers_training_and_ours_reach_the_same_loss(tmp_path, monkeypatch):
    from tests.benchmarks import training_workload

    def here(job, where="warm", **settings):
        return measure(job, "here", **settings | ({"model": "demo"} if "model" in settings else {}))

    monkeypatch.setattr(harness, "measure", here)
    monkeypatch.setattr(training_workload, "measure", here)
    fp32, bf16 = training_workload.step(bench(tmp_path, repeats=1))
    assert fp32.agree is True
    assert bf16.agree is True
    assert min(fp32.reference_s, fp32.wisepatch_s, bf16.wisepatch_s) > 0
    losses = measure(training_workload.reference_steps, "here", folder=tmp_path, steps=3).result
    assert losses[2] < losses[0]  # it learns: agreement is not that of two that stand still
    assert training_workload.last_report(losses) == pytest.approx(sum(losses[1:]) / 2)
    assert f"{training_workload.last_report(losses):.4f} and " in fp32.note


def test_a_machine_without_a_gpu_says_so(tmp_path, monkeypatch):
    import torch

    from tests.benchmarks import gpu_workloads

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(harness, "measure", lambda job, **settings: measure(job, "here", **settings))
    for workload in (gpu_workloads.b32, gpu_workloads.l14, gpu_workloads.head, gpu_workloads.training):
        (row,) = workload(bench(tmp_path))
        assert row.note == "no GPU here"
        assert row.agree is None


def test_the_papers_merge_and_ours_write_the_same_weights(tmp_path):
    pytest.importorskip("wisepatch.weights.streaming")
    import torch
    from safetensors.torch import save_file

    from tests.benchmarks import merge_workload, reference

    torch.manual_seed(0)
    for number in (0, 1):
        module = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.LayerNorm(5))
        module[0].weight.data.add_(number)
        save_file(module.state_dict(), tmp_path / f"{number}.safetensors")
        torch.save(module, tmp_path / f"{number}.pt")
    for merging in (merge_workload.whole_modules, merge_workload.dict_of_tensors, merge_workload.read_and_copy):
        measure(merging, "here", folder=tmp_path)
    measure(merge_workload.merge_files, "fresh", folder=tmp_path)
    same, off = measure(merge_workload.compare, "here", folder=tmp_path).result
    assert same
    assert off <= 1e-6
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "1.safetensors").read_bytes()
    assert reference.load(tmp_path / "mixed.pt")[0].weight.mean() > 0.4
