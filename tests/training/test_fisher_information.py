"""Fisher information: where it comes from, mixes that are weighed by it, recipes that find it again."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.samples import Notes
from tests.training.test_squared_gradients import by_hand
from wisepatch import (
    ModelConfig,
    Rule,
    Store,
    TrainConfig,
    export,
    find_tasks,
    finetune,
    load_weights,
    patch,
    predict_many,
)
from wisepatch.datasets import demo
from wisepatch.errors import ModelError, StoreError, UnknownNameError, UsageError
from wisepatch.models.classifier import Classifier
from wisepatch.models.clip import load_clip
from wisepatch.models.exporting import MODEL_WEIGHTS
from wisepatch.models.zeroshot_head import zeroshot_head
from wisepatch.training import fisher_information
from wisepatch.training.fisher_information import line_fishers, without_addresses
from wisepatch.weights.methods import interpolate
from wisepatch.workflows.sweep import sweep
from wisepatch.workflows.tasks_of_run import tasks_of_run

DEMO = ModelConfig("demo", "")
ALPHAS = (0.0, 0.25, 0.5, 1.0)


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 20, "val": 10, "test": 10})


def ends(store):
    end = store.find("finetuned")
    (start,) = store.parents(end)
    return start, end


def measure(store, data, **options):
    start, end = ends(store)
    return line_fishers(start, end, tasks_of_run(end, ())[0], store, data, **options)


def test_same_seed_gives_the_same_file_and_another_seed_another(run_store, tmp_path):
    first = measure(run_store, tmp_path, examples=5)
    assert (first["examples"], first["seed"]) == (5, 0)
    shutil.rmtree(run_store.root / "cache" / "fisher")
    assert measure(run_store, tmp_path, examples=5) == first
    others = [measure(run_store, tmp_path, examples=5, seed=1), measure(run_store, tmp_path, examples=4)]
    assert not {key for key, _ in first["files"]} & {key for other in others for key, _ in other["files"]}
    entry = run_store.root / "cache" / "fisher" / first["files"][1][0] / "entry.json"
    about = json.loads(entry.read_text())["about"]
    assert (about["checkpoint"], about["task"], about["examples"], about["of"]) == (
        ends(run_store)[1].id,
        "shapes",
        5,
        12,
    )


def test_second_run_finds_what_the_first_measured(run_store, tmp_path, monkeypatch):
    notes = Notes()
    first = measure(run_store, tmp_path, progress=notes)
    assert notes.notes == [f"Fisher information of {c.name}: 12 of 12 training images" for c in ends(run_store)]
    assert notes.bars == [[12, 12], [12, 12]]
    monkeypatch.setattr(fisher_information, "diagonal", lambda *_, **__: pytest.fail("measured again"))
    again = Notes()
    assert measure(run_store, tmp_path, progress=again) == first
    assert all(text.endswith("training images (from the store)") for text in again.notes)
    monkeypatch.undo()
    (path, _) = run_store.cache.fisher_paths(first["files"])
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")  # a damaged file is measured anew
    assert measure(run_store, tmp_path) == first


def test_what_is_measured_is_the_tower_on_the_training_images(run_store, finished, tmp_path):
    from safetensors.torch import load_file

    (_, path) = run_store.cache.fisher_paths(measure(run_store, tmp_path)["files"])
    found = load_file(path)
    clip = load_clip(DEMO, load_weights(run_store, ends(run_store)[1]))
    (task,) = find_tasks([str(finished[0] / "shapes")])
    split = task.dataset.split("train", tmp_path, clip.transform)
    chance = torch.Generator().manual_seed(0)
    torch.randperm(12, generator=chance)
    head = zeroshot_head(clip, task.dataset.classes, task.dataset.templates)
    expected, _ = by_hand(Classifier(clip.model.visual, head), split, torch.rand(12, generator=chance))
    assert set(found) == {name for name in expected if name.startswith("visual.")}
    for name, tensor in found.items():
        assert torch.allclose(tensor, expected[name], rtol=1e-3, atol=1e-4 * float(expected[name].max()) + 1e-12), name


def test_recipes_load_and_the_ends_are_the_parents(run_store, tmp_path):
    swept = sweep(run_store, tmp_path, alphas=ALPHAS, method="fisher", tasks=(), rule=Rule())
    mixed = swept.checkpoints[0.5]
    assert (mixed.is_recipe, mixed.method, mixed.name) == (True, "fisher", "demo/shapes/fisher-alpha=0.5")
    assert [swept.checkpoints[alpha].kind for alpha in (0, 1)] == ["zeroshot", "finetuned"]
    assert {row["method"] for row in swept.rows} == {"fisher"}
    start, end = (load_weights(run_store, each) for each in ends(run_store))
    weights, fishers = load_weights(run_store, mixed), run_store.read_fishers(mixed)
    linear, moved = interpolate(start, end, 0.5), 0
    for name, tensor in weights.items():
        if name in fishers[0]:
            f0, f1 = (each[name].double().clamp(min=1e-8) for each in fishers)
            exact = (f0 * start[name].double() + f1 * end[name].double()) / (f0 + f1)
            assert torch.allclose(tensor.double(), exact, rtol=1e-4, atol=1e-6), name
            moved += not torch.equal(tensor, linear[name])
        else:
            assert torch.equal(tensor, linear[name]), name
    assert moved
    chosen = run_store.find("patched")
    assert (chosen.recipe, chosen.training, chosen.config["select"]) == (
        replace(mixed.recipe, params=mixed.recipe.params | {"alpha": chosen.alpha}),
        "paint",
        "best-mean",
    )
    expected = interpolate(start, end, chosen.alpha, fishers)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_weights(run_store, chosen).items())


def test_one_pass_predicts_what_separate_runs_of_files_predict(run_store, finished, tmp_path):
    tasks = find_tasks([str(finished[0] / "shapes")])
    weighed = list(sweep(run_store, tmp_path, alphas=(0, 0.25, 0.5), method="fisher", tasks=()).checkpoints.values())
    linear = sweep(run_store, tmp_path, alphas=(0.5,), tasks=()).checkpoints[0.5]
    file = sweep(run_store, tmp_path, alphas=(0.5,), method="fisher", tasks=(), materialize=True).checkpoints[0.5]
    assert (file.is_recipe, file.method) == (False, "fisher")
    recipe = load_weights(run_store, weighed[2])
    assert all(torch.equal(tensor, recipe[name]) for name, tensor in load_weights(run_store, file).items())
    export(run_store, weighed[2], tmp_path / "out")
    exported = load_file(tmp_path / "out" / MODEL_WEIGHTS)
    assert len(exported) > 50
    assert all(torch.equal(tensor, recipe[name]) for name, tensor in exported.items())
    (together,) = predict_many([*weighed, linear], tasks, run_store, tmp_path, split="train")
    for index, checkpoint in enumerate([*weighed, linear]):
        (alone,) = predict_many([checkpoint], tasks, run_store, tmp_path, split="train")
        assert np.array_equal(alone.predicted[0], together.predicted[index])
        assert np.array_equal(alone.confidence[0], together.confidence[index])
    (of_file,) = predict_many([file], tasks, run_store, tmp_path, split="train")
    assert np.array_equal(of_file.confidence[0], together.confidence[2])
    assert (together.confidence[2] != together.confidence[3]).any()


@pytest.mark.parametrize("freeze_encoder", [False, True])
def test_trained_heads_are_weighed_too(shapes, tmp_path, freeze_encoder):
    store = Store(tmp_path / "store")
    config = TrainConfig.with_defaults(
        str(shapes), head="trained", freeze_encoder=freeze_encoder, steps=5, batch_size=8, lr=1e-2, warmup=0
    )
    finetune(config, DEMO, store, tmp_path)
    mixed = sweep(store, tmp_path, alphas=ALPHAS, method="fisher", tasks=()).checkpoints
    fisher, _ = store.read_fishers(mixed[0.5])
    towers_part = {name for name in fisher if name.startswith("visual.")}
    assert set(fisher) - towers_part == {"classifier.weight", "classifier.bias"}
    assert bool(towers_part) is not freeze_encoder
    (task,) = find_tasks([str(shapes)])
    (found,) = predict_many(list(mixed.values()), [task], store, tmp_path, split="train")
    for index, checkpoint in enumerate(mixed.values()):
        weights = load_weights(store, checkpoint)
        clip = load_clip(DEMO, weights)
        classifier = Classifier(clip.model.visual, weights["classifier.weight"], weights["classifier.bias"])
        split = task.dataset.split("train", tmp_path, clip.transform)
        with torch.inference_mode():
            sure = classifier(torch.stack([split[i][0] for i in range(len(split))])).softmax(1).amax(1)
        assert np.allclose(found.confidence[index], sure.numpy(), atol=1e-5)


def test_recipe_whose_information_is_gone_says_what_to_do(cli, run_store, tmp_path):
    mixed = sweep(run_store, tmp_path, alphas=(0.5,), method="fisher", tasks=()).checkpoints[0.5]
    assert cli("store", "verify").exit_code == 0
    assert cli("store", "gc").stdout.startswith("removed 0 files and folders")
    (_, path) = run_store.fisher_paths(mixed)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(StoreError, match="is not what the mix was made with"):
        load_weights(run_store, mixed)
    path.unlink()
    with pytest.raises(StoreError, match=rf"the Fisher information .*{path.parent.name} is gone") as caught:
        load_weights(run_store, mixed)
    assert "interpolate --method fisher" in caught.value.hint
    with pytest.raises(StoreError, match="is gone"):
        next(predict_many([mixed], find_tasks(["Colors"]), run_store, tmp_path))
    assert cli("store", "verify").exit_code == 1
    assert sweep(run_store, tmp_path, alphas=(0.5,), method="fisher", tasks=()).checkpoints[0.5].id == mixed.id
    load_weights(run_store, mixed)
    path.unlink()
    assert cli("store", "gc").stdout.startswith("removed 4 files and folders")  # it, its answers, what weighed it


def test_command_mixes_both_ways_and_the_picture_tells_them_apart(cli, run_store):
    for method in ("linear", "fisher"):
        result = cli(
            "interpolate", "--method", method, "--fisher-examples", 5, "--alpha", "0,0.5,1", "--eval", "Colors"
        )
        assert result.exit_code == 0, result.output
    assert "Fisher information of demo/shapes/finetuned: 5 of 12 training images" in result.stderr
    rows = [json.loads(line) for line in run_store.results.read_text().splitlines()]
    assert [row["method"] for row in rows[6:]] == ["fisher"] * 6
    assert cli("plot", "--run", "all", "--output", "both.png").exit_code == 0
    from wisepatch import draw_sweep, read_results, sweep_table

    legend = draw_sweep(sweep_table(read_results(run_store.results)[0])).legends[0].get_texts()
    assert sorted(", weighed by Fisher information" in text.get_text() for text in legend[:2]) == [False, True]
    again = cli("interpolate", "--method", "fisher", "--fisher-examples", 5, "--alpha", "0.5", "--eval", "Colors")
    assert again.stderr.count("(from the store)") == 2


def test_misspelt_method_lists_the_known_ones(cli, run_store, shapes, tmp_path):
    result = cli("interpolate", "--method", "fischer")
    assert result.exit_code == 2
    assert "unknown merge method 'fischer'; did you mean fisher?" in result.stderr
    assert "hint: known: breadcrumbs, dare, fisher" in result.stderr
    config = TrainConfig.with_defaults(str(shapes), steps=1)
    with pytest.raises(UnknownNameError, match="merge method 'fischer'"):  # before anything is trained
        patch(config, DEMO, Store(tmp_path / "other"), tmp_path, method="fischer")
    assert not (tmp_path / "other").exists()
    with pytest.raises(UsageError, match="0 images have no Fisher information"):
        sweep(run_store, tmp_path, method="fisher", fisher_examples=0)


def test_patch_takes_the_method(cli, shapes):
    result = cli(
        "patch", "--model", "demo", "--task", shapes, "--supported", "Colors", "--steps", "2", "--batch-size", "8",
        "--lr", "1e-3", "--alpha", "0,0.5,1", "--method", "fisher", "--fisher-examples", "6", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert {json.loads(line)["method"] for line in result.stdout.splitlines() if "method" in json.loads(line)} == {
        "fisher"
    }
    assert cli("eval", "patched", "--task", "Colors").exit_code == 0


def test_information_that_is_not_finite_is_an_error(run_store, tmp_path, monkeypatch):
    monkeypatch.setattr(fisher_information, "diagonal", lambda *_, **__: {"visual.w": torch.tensor([torch.inf])})
    with pytest.raises(ModelError, match="the Fisher information of demo/zeroshot is not finite"):
        measure(run_store, tmp_path)
    assert list((run_store.root / "cache" / "fisher").iterdir()) == []


def test_preprocessing_by_functions_is_the_same_in_every_process():
    def to_rgb(image):
        return image

    here, elsewhere = (
        str(to_rgb),
        "<function test_preprocessing_by_functions_is_the_same_in_every_process.<locals>.to_rgb at 0x7f1>",
    )
    assert here != elsewhere
    assert without_addresses(here) == without_addresses(elsewhere)
    assert without_addresses("Resize(size=64)") == "Resize(size=64)"
