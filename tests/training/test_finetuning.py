"""Fine-tuning: what is trained, what stays, and what is written."""

import math

import pytest
import torch

from tests.samples import Notes
from wisepatch import EvalConfig, ModelConfig, Store, TrainConfig, finetune, load_weights, sweep
from wisepatch.datasets.samples import set_epoch
from wisepatch.datasets.training_batches import Seeded
from wisepatch.errors import DataError, StoreError, TrainingError, UsageError
from wisepatch.workflows.patching import finetune_watched

DEMO = ModelConfig("demo", "")


def run(folder, store, **settings):
    given = {"steps": 3, "batch_size": 8, "lr": 1e-3, "warmup": 0} | settings
    return finetune(TrainConfig.with_defaults(str(folder), **given), DEMO, Store(store), folder)


def differing(store, done):
    start, end = (load_weights(store, c) for c in (done.zeroshot, done.finetuned))
    assert start.keys() == end.keys()
    return {name for name in start if not torch.equal(start[name], end[name])}


def test_frozen_head_trains_the_image_tower_alone(finished):
    root, done = finished
    changed = differing(Store(root / "store"), done)
    assert changed
    assert all(name.startswith("visual.") for name in changed)
    assert (done.finetuned.training, done.finetuned.kind, done.finetuned.head) == ("paint", "finetuned", None)
    assert done.finetuned.parents == (done.zeroshot.id,)
    assert done.finetuned.config["steps"] == 4
    assert done.finetuned.name == "demo/shapes/finetuned"


def test_trained_head_changes_tower_and_head_and_the_parent_has_the_zeroshot_head(shapes, tmp_path):
    done = run(shapes, tmp_path / "store", head="trained")
    changed = differing(Store(tmp_path / "store"), done)
    assert {"classifier.weight", "classifier.bias"} < changed
    assert any(name.startswith("visual.") for name in changed)
    assert not any(name.startswith(("transformer.", "token_embedding")) for name in changed)
    assert done.finetuned.training == "wise-ft"
    assert done.zeroshot.head == done.finetuned.head == {"task": "shapes", "classes": ["circle", "square", "triangle"]}


def test_frozen_encoder_trains_the_head_alone_on_features_computed_once(shapes, tmp_path, monkeypatch):
    from wisepatch.models.tower import Tower

    calls = []
    original = Tower.features
    monkeypatch.setattr(Tower, "features", lambda self, x: calls.append(len(x)) or original(self, x))
    done = run(shapes, tmp_path / "store", freeze_encoder=True, steps=None, epochs=5)
    assert sum(calls) == 12  # the training images once, for five epochs
    assert differing(Store(tmp_path / "store"), done) == {"classifier.weight", "classifier.bias"}
    assert done.finetuned.training == "linear-probe"
    run(shapes, tmp_path / "store", freeze_encoder=True, steps=2, lr=1e-2)
    assert sum(calls) == 12  # nor are they computed again by another run
    for path in shapes.rglob("*.png"):
        path.touch()
    run(shapes, tmp_path / "store", freeze_encoder=True, steps=2)
    assert sum(calls) == 24  # but they are when the files have changed


def test_frozen_encoder_alone_means_a_trained_head(shapes, tmp_path):
    config = TrainConfig(task=str(shapes), freeze_encoder=True, steps=2, batch_size=8, lr=1e-2, warmup=0)
    done = finetune(config, DEMO, Store(tmp_path / "store"), tmp_path)
    assert differing(Store(tmp_path / "store"), done) == {"classifier.weight", "classifier.bias"}
    assert done.finetuned.training == "linear-probe"
    assert done.finetuned.head == {"task": "shapes", "classes": ["circle", "square", "triangle"]}


def test_same_seed_gives_the_same_weights_and_another_seed_others(shapes, tmp_path):
    same = [run(shapes, tmp_path / str(i), seed=s).finetuned.files for i, s in enumerate((1, 1, 2))]
    assert same[0] == same[1]
    assert same[0] != same[2]


def test_balanced_weights_train_another_model_and_are_recorded(shapes, tmp_path):
    for path in list((shapes / "circle").glob("*.png"))[:4]:
        path.unlink()
    plain, balanced = (
        run(shapes, tmp_path / weights, weights=weights, freeze_encoder=True).finetuned
        for weights in ("none", "balanced")
    )
    assert plain.files != balanced.files
    assert "weights" not in plain.config  # as before there were any
    assert balanced.config["weights"] == "balanced"
    with pytest.raises(UsageError, match="weights is none or balanced, not 'rare'"):
        TrainConfig.with_defaults("Shapes", weights="rare")


def test_weights_do_not_depend_on_how_many_processes_read_images(shapes, tmp_path):
    """Crops follow from seed, epoch and index; an epoch is two steps here."""
    told = [run(shapes, tmp_path / str(workers), steps=5, workers=workers) for workers in (0, 2)]
    assert told[0].losses == told[1].losses
    one, other = (
        load_weights(Store(tmp_path / str(workers)), done.finetuned) for workers, done in zip((0, 2), told, strict=True)
    )
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_crops_are_drawn_anew_each_epoch_and_leave_other_random_numbers_alone():
    seen = Seeded([(index, index) for index in range(3)], seed=4)
    drawing = Seeded(Drawing(), seed=4)
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    epochs = []
    for epoch in (0, 1, 0):
        set_epoch(drawing, epoch)
        epochs.append([drawing[index][0] for index in range(3)])
    assert epochs[0] == epochs[2]
    assert len(set(epochs[0] + epochs[1])) == 6
    assert Seeded(Drawing(), seed=5)[0] != Seeded(Drawing(), seed=4)[0]
    assert torch.equal(torch.rand(2), expected)
    assert (len(seen), seen[2]) == (3, (2, 2))


class Drawing:
    """Samples that are a random number each."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return float(torch.rand(())), index


def test_accumulated_batches_are_one_larger_batch(shapes, tmp_path):
    """Twelve images as one batch, or as two of six: the same gradient up to rounding."""
    ends = []
    for name, settings in (("one", {"batch_size": 12}), ("two", {"batch_size": 6, "grad_accumulation": 2})):
        store = Store(tmp_path / name)
        done = run(shapes, tmp_path / name, freeze_encoder=True, steps=2, **settings)
        ends.append(load_weights(store, done.finetuned)["classifier.weight"])
        assert len(done.losses) == 2
    assert torch.allclose(ends[0], ends[1], atol=1e-4)


def test_what_the_launcher_was_told_of_accumulation_changes_nothing(shapes, tmp_path, monkeypatch):
    straight = run(shapes, tmp_path / "one")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    assert run(shapes, tmp_path / "two").finetuned.files == straight.finetuned.files


def test_loss_falls_when_there_is_something_to_learn(shapes, tmp_path):
    wrong = ("star", "heart", "ring")  # names that the model has to learn for circles, squares and triangles
    losses = run(shapes, tmp_path / "store", steps=40, lr=3e-3, classnames=wrong).losses
    assert len(losses) == 5  # of the first step, and of every tenth
    assert losses[-1] < 0.5 * losses[0]


def test_start_from_a_checkpoint_makes_it_the_parent(run_store, shapes, tmp_path):
    before = run_store.find("finetuned")
    done = finetune(
        TrainConfig.with_defaults(str(shapes), steps=1, batch_size=8, start="finetuned"), DEMO, run_store, tmp_path
    )
    assert done.zeroshot.id == before.id
    assert done.finetuned.parents == (before.id,)


def test_loss_that_is_not_finite_stops_the_run_and_saves_nothing(shapes, tmp_path):
    with pytest.raises(TrainingError, match=r"the loss is nan at step \d+ of 40") as caught:
        run(shapes, tmp_path / "store", steps=40, lr=1e30, head="trained")
    assert "--lr" in caught.value.hint
    assert [c.kind for c in Store(tmp_path / "store").everything()] == ["zeroshot"]


def test_bf16_runs_and_keeps_weights_in_fp32(shapes, tmp_path):
    done = run(shapes, tmp_path / "store", mixed_precision="bf16")
    weights = load_weights(Store(tmp_path / "store"), done.finetuned)
    assert {t.dtype for t in weights.values()} == {torch.float32}
    assert all(map(math.isfinite, done.losses))


def test_split_other_than_train_is_refused(tmp_path):
    with pytest.raises(UsageError, match="Digits@test names the test split, and training uses train") as caught:
        finetune(TrainConfig.with_defaults("Digits@test", steps=1), DEMO, Store(tmp_path), tmp_path)
    assert caught.value.hint == "write Digits: a tenth of train is held out anyway"


def test_start_in_another_store_is_refused(finished, shapes, tmp_path):
    path = finished[0] / "store" / "checkpoints" / finished[1].finetuned.id
    config = TrainConfig.with_defaults(str(shapes), steps=1, start=str(path))
    with pytest.raises(StoreError, match="lies in another store") as caught:
        finetune(config, DEMO, Store(tmp_path / "store"), tmp_path)
    assert str(finished[0] / "store") in caught.value.hint


def test_task_without_training_images_says_so(tmp_path, shapes):
    (tmp_path / "only").mkdir()
    shapes.rename(tmp_path / "only" / "test")
    with pytest.raises(DataError, match="task 'only' has no 'train' split"):
        run(tmp_path / "only", tmp_path / "store")


def test_eval_every_reports_validation_accuracy(shapes, tmp_path):
    notes = Notes()
    config = TrainConfig.with_defaults(str(shapes), steps=4, batch_size=8, eval_every=1)
    finetune_watched(config, DEMO, Store(tmp_path / "store"), tmp_path, notes)
    assert [text.split(":")[0] for text in notes.notes] == ["epoch 1.0 (val)", "epoch 2.0 (val)"]
    assert "shapes" in notes.notes[0]
    assert notes.bars == [[1, 1], [4, 4]]  # the bars were right


def test_looking_at_validation_data_does_not_change_the_weights(shapes, tmp_path):
    ends = []
    for name, every in (("with", 1), ("without", None)):
        config = TrainConfig.with_defaults(str(shapes), steps=4, batch_size=8, lr=1e-3, eval_every=every)
        ends.append(finetune_watched(config, DEMO, Store(tmp_path / name), tmp_path).finetuned.files)
    assert ends[0] == ends[1]


def test_fp16_without_a_gpu_is_refused(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match="fp16 trains on a GPU only") as caught:
        run(shapes, tmp_path / "store", mixed_precision="fp16")
    assert "bf16" in caught.value.hint


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_line_is_trained_and_swept_on_a_gpu(shapes, tmp_path, precision):
    store = Store(tmp_path / "store")
    done = run(shapes, tmp_path / "store", mixed_precision=precision, head="trained", steps=20, eval_every=1)
    swept = sweep(store, tmp_path, alphas=(0, 0.5, 1), tasks=["Colors"], settings=EvalConfig(mixed_precision=precision))
    assert all(map(math.isfinite, done.losses))
    assert len(swept.rows) == 6


def test_batch_normalisation_keeps_its_statistics(shapes, tmp_path):
    """So that mixing has no running statistics to recompute, and no counters that differ."""
    import json

    from wisepatch.models.clip import EMBEDDED

    local = tmp_path / "resnet"
    local.mkdir()
    config = json.loads((EMBEDDED / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"] = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
    (local / "open_clip_config.json").write_text(json.dumps(config))
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = open_clip.CLIP(**config["model_cfg"])
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, local / "open_clip_model.safetensors")
    store = Store(tmp_path / "store")
    settings = TrainConfig.with_defaults(str(shapes), steps=3, batch_size=8, lr=1e-3)
    done = finetune(settings, ModelConfig(f"local-dir:{local}", ""), store, tmp_path)
    changed = differing(store, done)
    assert "visual.layer1.0.bn1.weight" in changed
    assert not [name for name in changed if "running" in name or "num_batches" in name]
    assert done.finetuned.name == "resnet/shapes/finetuned"
    assert len(sweep(store, tmp_path, alphas=(0, 0.5, 1)).rows) == 3


@pytest.mark.slow
def test_vit_b_32_with_weights_from_a_file_goes_the_whole_way(cli, shapes, tmp_path):
    """Random weights of the real architecture, given by hand as in an offline lab."""
    import json

    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32")
    weights = tmp_path / "w.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, weights)

    def rows(*words):
        result = cli(*words, "--json")
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    named = ("--model", "ViT-B/32", "--pretrained", weights)
    zeroshot = rows("zeroshot", *named, "--task", shapes)
    parent, _ = rows("finetune", *named, "--task", shapes, "--steps", "2", "--batch-size", "4")
    assert parent["id"] == zeroshot[0]["checkpoint"]
    weights.unlink()  # the store has everything from here on
    swept = rows("interpolate", "--alpha", "0,0.5,1")
    again = rows("eval", "zeroshot", "finetuned", "--task", shapes)
    assert [row["value"] for row in again] == [swept[0]["value"], swept[2]["value"]]
    assert zeroshot[0]["value"] == swept[0]["value"]


def test_start_from_a_checkpoint_with_nan_is_refused_before_the_first_step(run_store, shapes, tmp_path):
    end = run_store.find("finetuned")
    weights = {
        name: tensor * torch.nan if name == "logit_scale" else tensor for name, tensor in run_store.read(end).items()
    }
    broken = run_store.save(weights, kind="finetuned", name="broken", model=end.model, training="paint")
    config = TrainConfig.with_defaults(str(shapes), steps=1, batch_size=8, start=broken.id)
    with pytest.raises(StoreError, match=r"\(broken\) holds NaN or infinities in 1 tensor, such as logit_scale"):
        finetune(config, DEMO, run_store, tmp_path)
