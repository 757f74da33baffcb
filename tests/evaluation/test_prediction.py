"""One pass over the data: the same predictions as one run per checkpoint, and nothing that grows with alphas."""

import shutil

import numpy as np
import pytest
import torch

from wisepatch import (
    ModelConfig,
    Store,
    TrainConfig,
    evaluate,
    find_tasks,
    finetune,
    interpolate,
    load_weights,
    predict_many,
)
from wisepatch.errors import StoreError, UnknownNameError, UsageError
from wisepatch.evaluation.endpoints import Heads, gather_mixes, merged, set_weights
from wisepatch.store.checkpoints import Recipe
from wisepatch.store.predictions import load_predictions
from wisepatch.workflows.patching import sweep

DEMO = ModelConfig("demo", "")
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.fixture
def tasks(finished):
    return find_tasks([str(finished[0] / "shapes"), "Colors@val"])


def recipes(store, tmp_path):
    return list(sweep(store, tmp_path, alphas=ALPHAS, tasks=()).checkpoints.values())


def test_one_pass_and_separate_runs_predict_the_same(run_store, tasks, tmp_path):
    mixes = recipes(run_store, tmp_path)
    together = list(predict_many(mixes, tasks, run_store, tmp_path, split="train"))
    for index, mix in enumerate(mixes):
        alone = list(predict_many([mix], tasks, run_store, tmp_path, split="train"))
        for one, all_ in zip(alone, together, strict=True):
            assert np.array_equal(one.predicted[0], all_.predicted[index])
            assert np.array_equal(one.labels, all_.labels)
    assert len({p.predicted[i].tobytes() for p in together for i in range(len(mixes))}) > 2  # they do differ


def test_recipes_and_their_materialised_weights_predict_the_same(run_store, tasks, tmp_path):
    mixed = sweep(run_store, tmp_path, alphas=[0.5], tasks=()).checkpoints[0.5]
    weights = sweep(run_store, tmp_path, alphas=[0.5], tasks=(), materialize=True).checkpoints[0.5]
    assert mixed.is_recipe
    assert not weights.is_recipe
    for found in predict_many([mixed, weights], tasks, run_store, tmp_path):
        assert np.array_equal(found.predicted[0], found.predicted[1])


def test_every_image_is_decoded_once_whatever_the_number_of_alphas(run_store, finished, tmp_path, monkeypatch):
    from wisepatch.datasets.folder import FileSamples

    decoded = []
    original = FileSamples.__getitem__
    monkeypatch.setattr(FileSamples, "__getitem__", lambda self, i: decoded.append(i) or original(self, i))
    found = next(
        predict_many(
            recipes(run_store, tmp_path), find_tasks([str(finished[0] / "shapes")]), run_store, tmp_path, split="train"
        )
    )
    decoded.clear()
    found = next(predict_many(found.checkpoints, [found.task], run_store, tmp_path, split="train"))
    assert len(decoded) == found.predicted.shape[1] == 12
    assert found.predicted.shape[0] == len(ALPHAS)


def test_two_ends_are_held_whatever_the_number_of_alphas(run_store, tmp_path, monkeypatch):
    mixes = recipes(run_store, tmp_path)
    read = []
    original = Store.read
    monkeypatch.setattr(Store, "read", lambda self, c: read.append(c.id) or original(self, c))
    lines = gather_mixes(mixes, run_store, torch.device("cpu"))
    assert len(read) == 2
    assert len(lines) == 1
    assert [alpha for _, alpha in lines[0].members] == list(ALPHAS)


def test_weights_in_the_working_copy_are_the_interpolated_ones(run_store, tmp_path):
    mixes = recipes(run_store, tmp_path)
    (line,) = gather_mixes(mixes, run_store, torch.device("cpu"))
    start, end = (load_weights(run_store, run_store.find(k)) for k in ("zeroshot", "finetuned"))
    visual = line.clip.model.visual
    for alpha in (1.0, 0.3, 0.0, 0.7):
        set_weights(visual, line, alpha)
        expected = interpolate(start, end, alpha)
        for name, tensor in visual.state_dict().items():
            assert torch.equal(tensor, expected[f"visual.{name}"]), name


def test_trained_heads_are_mixed_and_other_tasks_keep_their_own(shapes, tmp_path):
    store = Store(tmp_path / "store")
    config = TrainConfig.with_defaults(str(shapes), steps=5, batch_size=8, lr=1e-2, head="trained", warmup=0)
    finetune(config, DEMO, store, tmp_path)
    mixed = sweep(store, tmp_path, alphas=ALPHAS, tasks=["Colors"])
    by_hand = {}
    encoder_rows = list(
        predict_many(list(mixed.checkpoints.values()), find_tasks([str(shapes)]), store, tmp_path, split="train")
    )
    from wisepatch.datasets.loading import checked, loader
    from wisepatch.models.classifier import Classifier
    from wisepatch.models.clip import load_clip

    for alpha, checkpoint in mixed.checkpoints.items():
        weights = load_weights(store, checkpoint)
        clip = load_clip(DEMO, weights)
        classifier = Classifier(clip.model.visual, weights["classifier.weight"], weights["classifier.bias"])
        split = find_tasks([str(shapes)])[0].dataset.split("train", tmp_path, clip.transform)
        with torch.inference_mode():
            by_hand[alpha] = torch.cat([classifier(checked(b)[0]).argmax(1) for b in loader(split, 64)]).numpy()
    for index, alpha in enumerate(ALPHAS):
        assert np.array_equal(encoder_rows[0].predicted[index], by_hand[alpha])


def test_linear_classifier_needs_no_other_tower(shapes, tmp_path):
    store = Store(tmp_path / "store")
    config = TrainConfig.with_defaults(str(shapes), steps=5, batch_size=8, freeze_encoder=True, warmup=0)
    finetune(config, DEMO, store, tmp_path)
    swept = sweep(store, tmp_path, alphas=(0, 1), tasks=["Colors"])
    colors = [row["value"] for row in swept.rows if row["task"] == "Colors"]
    assert colors[0] == colors[1]  # the head of shapes has no part in colors


def test_rows_are_the_contracts_and_predictions_are_kept(run_store, tasks, tmp_path):
    rows = evaluate([run_store.find("zeroshot")], tasks, run_store, tmp_path, run="r")
    from wisepatch.store.results import COLUMNS

    assert all(set(COLUMNS) <= set(row) for row in rows)
    assert [(row["task"], row["split"], row["alpha"], row["training"], row["method"]) for row in rows] == [
        ("shapes", "test", 0.0, "zeroshot", None), ("Colors", "val", 0.0, "zeroshot", None),
    ]  # fmt: skip
    for row in rows:
        frame = load_predictions(run_store, run_store.find("zeroshot"), row["task"], row["split"])
        assert (frame["answer"] == frame["label"]).mean() == row["value"]
        assert len(frame) == len(set(frame["image"])) == row["n"]
        assert frame.attrs["precision"] == "no"


def test_checkpoints_of_different_architectures_cannot_be_mixed(run_store, tmp_path):
    zeroshot, finetuned = run_store.find("zeroshot"), run_store.find("finetuned")
    smaller = {k: v for k, v in load_weights(run_store, finetuned).items() if "conv_stem" not in k}
    other = run_store.save(smaller, kind="finetuned", name="other", model=zeroshot.model, trained_from=[zeroshot.id],
                           config=finetuned.config)  # fmt: skip
    with pytest.raises(StoreError, match=r"different architectures: 1 tensors are in one of them only, such as visual"):
        sweep(run_store, tmp_path, alphas=[0.5], checkpoint=other.id, tasks=())


def test_only_a_finetuned_checkpoint_can_be_swept(run_store, tmp_path):
    with pytest.raises(StoreError, match="is not a fine-tuned checkpoint") as caught:
        sweep(run_store, tmp_path, checkpoint="zeroshot")
    assert "wisepatch store list" in caught.value.hint


def test_nothing_to_evaluate_and_unknown_metrics_are_errors(run_store, tasks, tmp_path):
    with pytest.raises(UsageError, match="no checkpoint to evaluate"):
        evaluate([], tasks, run_store, tmp_path)
    with pytest.raises(UnknownNameError, match="unknown metric 'f1'"):
        evaluate([run_store.find("zeroshot")], tasks, run_store, tmp_path, metrics=["f1"])


def test_bf16_agrees_with_fp32_on_nearly_all_images(run_store, tasks, tmp_path):
    full, half = (
        next(predict_many([run_store.find("zeroshot")], tasks[1:], run_store, tmp_path, mixed_precision=precision))
        for precision in ("no", "bf16")
    )
    assert (full.predicted == half.predicted).mean() > 0.97


def test_merged_logits_are_the_largest_of_those_that_merge():
    said = torch.tensor([[1.0, 5.0, 2.0, 9.0], [-3.0, -2.0, -8.0, -1.0]])
    assert merged(())(said) is said
    assert merged(((2,), (0,)))(said).tolist() == [[2.0, 1.0], [-8.0, -3.0]]
    assert merged(((0, 1), (2,), ()))(said).tolist() == [[5.0, 2.0, -torch.inf], [-2.0, -8.0, -torch.inf]]


def shifted(parent):
    """A task with the head of ``parent``: three classes, of which the second stands for two of its own, the last for none."""
    from dataclasses import replace

    from wisepatch.plugins import Task

    dataset = parent.dataset
    halves = replace(
        dataset, name="halves", classes=("a", "b", "c"), head_classes=dataset.classes, label_map=((0,), (1, 2), ()), metric="top1"
    )  # fmt: skip
    return Task("halves", halves)


def test_task_with_the_head_of_another_task_is_measured_under_that_head(run_store, tasks, tmp_path):
    mixes = recipes(run_store, tmp_path)
    whole = next(predict_many(mixes, tasks[:1], run_store, tmp_path, split="train"))
    half = next(predict_many(mixes, [shifted(tasks[0])], run_store, tmp_path, split="train"))
    assert set(np.unique(whole.predicted)) > {0, 1}
    assert np.array_equal(half.predicted, np.minimum(whole.predicted, 1))  # a maximum of logits keeps the winner


def test_trained_head_serves_the_tasks_that_share_it(finished, tasks, tmp_path):
    config = TrainConfig.with_defaults(
        str(finished[0] / "shapes"), head="trained", steps=6, batch_size=8, lr=1e-2, warmup=0
    )
    store = Store(tmp_path / "store")
    done = finetune(config, DEMO, store, tmp_path)
    (line,) = gather_mixes([done.finetuned], store, torch.device("cpu"))
    assert Heads(line, shifted(tasks[0]), store).trained
    whole = next(predict_many([done.finetuned], tasks[:1], store, tmp_path, split="train"))
    half = next(predict_many([done.finetuned], [shifted(tasks[0])], store, tmp_path, split="train"))
    assert np.array_equal(half.predicted, np.minimum(whole.predicted, 1))


def test_groups_and_further_metrics_have_rows_of_their_own(run_store, tasks, finished, tmp_path):
    from dataclasses import replace

    from wisepatch.datasets.base import Annotations
    from wisepatch.plugins import Task

    plain = tasks[0].dataset

    def with_groups(split, root, transform=None):
        samples = plain.open(split, root, transform)
        annotations = Annotations(groups=[i % 2 for i in range(len(samples))], group_names=("even", "odd"))
        return replace(samples, annotations=annotations)

    grouped = Task(
        "grouped", replace(plain, name="grouped", open=with_groups, extra_metrics=("worst_group", "macro_f1"))
    )
    rows = evaluate([finished[1].finetuned], [grouped], run_store, tmp_path, split="train")
    found = {row["metric"]: row for row in rows}
    assert list(found) == ["top1", "worst_group", "top1[even]", "top1[odd]", "macro_f1"]
    assert found["top1[even]"]["n"] + found["top1[odd]"]["n"] == found["top1"]["n"]
    assert found["worst_group"]["value"] == min(found["top1[even]"]["value"], found["top1[odd]"]["value"])
    with pytest.raises(UsageError, match="pm0 needs sequences"):
        evaluate([finished[1].finetuned], [grouped], run_store, tmp_path, metrics=["pm0"])


@pytest.fixture
def linear(finished, tmp_path):
    """A store with a linear classifier: the encoder as it was, the head trained."""
    config = TrainConfig.with_defaults(
        str(finished[0] / "shapes"), freeze_encoder=True, steps=20, batch_size=8, lr=1.0, warmup=0
    )
    store = Store(tmp_path / "linear")
    return store, finetune(config, DEMO, store, tmp_path)


def test_sweep_of_a_linear_classifier_sees_each_image_once_for_all_alphas_and_runs(
    linear, tasks, tmp_path, monkeypatch
):
    """Logits are linear in alpha: the answers are those of a whole model at every alpha (WiSE-FT section 3)."""
    from wisepatch import load_clip
    from wisepatch.models.classifier import Classifier

    store, done = linear
    seen = []
    from wisepatch.datasets.folder import FileSamples

    original = FileSamples.__getitem__
    monkeypatch.setattr(FileSamples, "__getitem__", lambda self, i: seen.append(i) or original(self, i))
    alphas = [i / 10 for i in range(11)]
    mixes = list(sweep(store, tmp_path, alphas=alphas, tasks=()).checkpoints.values())
    seen.clear()
    (tested,) = predict_many(mixes, tasks[:1], store, tmp_path, split="val")
    assert len(seen) == len(tested.labels)
    (again,) = predict_many(mixes, tasks[:1], store, tmp_path, split="val")
    (found,) = predict_many(mixes, tasks[:1], store, tmp_path, split="train")
    assert len(seen) == len(tested.labels)  # the features are in the store, those of train since the training
    assert np.array_equal(tested.predicted, again.predicted)
    assert len({row.tobytes() for row in found.confidence}) == 11  # the heads do differ
    opened = tasks[0].dataset.split("train", tmp_path, load_clip(DEMO).transform)
    images = torch.stack([opened[i][0] for i in range(len(opened))])
    ends = [load_weights(store, checkpoint) for checkpoint in (done.zeroshot, done.finetuned)]
    for alpha, predicted in zip(alphas, found.predicted, strict=True):
        weights = interpolate(*ends, alpha)
        clip = load_clip(DEMO, weights)
        whole = Classifier(clip.model.visual, weights["classifier.weight"], weights["classifier.bias"]).eval()
        with torch.no_grad():
            assert whole(images).argmax(1).tolist() == predicted.tolist()
    (line,) = gather_mixes(mixes, store, torch.device("cpu"))
    assert line.is_linear


def test_later_sweeps_of_a_linear_classifier_read_no_model(linear, tasks, tmp_path, monkeypatch):
    store, done = linear
    mixes = list(sweep(store, tmp_path, alphas=ALPHAS, tasks=()).checkpoints.values())
    (first,) = predict_many(mixes, tasks[:1], store, tmp_path, split="train", mixed_precision="no")
    finer = list(sweep(store, tmp_path, alphas=(0, 0.1, 0.5, 0.9), tasks=()).checkpoints.values())
    with monkeypatch.context() as patched:
        patched.setattr("wisepatch.evaluation.prediction.recall", lambda *_: None)
        whole = [next(predict_many([mix, done.zeroshot, done.finetuned], tasks[:1], store, tmp_path)) for mix in finer]
    with monkeypatch.context() as patched:
        patched.setattr(Store, "weights_path", lambda self, checkpoint: pytest.fail("weights were read"))
        (again,) = predict_many(mixes, tasks[:1], store, tmp_path, split="train")
        (others,) = predict_many(finer, tasks[:1], store, tmp_path)
        for mine, theirs in ((again, first), *zip([others] * len(whole), whole, strict=True)):
            assert mine.task.name == theirs.task.name
            assert mine.split == theirs.split
            assert np.array_equal(mine.labels, theirs.labels)
            assert len(mine.annotations.groups or ()) == len(theirs.annotations.groups or ())
        assert np.array_equal(again.predicted, first.predicted)
        assert np.array_equal(again.confidence, first.confidence)
        for index, one in enumerate(whole):
            assert np.array_equal(others.predicted[index], one.predicted[0])
            assert np.array_equal(others.confidence[index], one.confidence[0])
    assert not np.array_equal(first.confidence[0], first.confidence[-1])


@pytest.mark.parametrize(
    "missing",
    ["features", "heads", "broken", "one bit", "other task", "other precision", "other versions", "other design"],
)
def test_a_model_is_read_where_something_of_a_linear_classifier_is_not_kept(
    linear, tasks, tmp_path, monkeypatch, missing
):
    store, _ = linear
    mixes = list(sweep(store, tmp_path, alphas=ALPHAS, tasks=()).checkpoints.values())
    speed = {"mixed_precision": "bf16" if missing == "other precision" else "no"}
    for folder in (store.root / "cache" / "features").glob("*"):
        path, is_heads = folder / "tensors.safetensors", folder.name.startswith("heads-")
        if is_heads == (missing == "heads") and missing in ("features", "heads"):
            shutil.rmtree(folder)
        elif is_heads and missing == "broken":
            path.write_bytes(path.read_bytes()[:-9])
        elif is_heads and missing == "one bit":
            content = bytearray(path.read_bytes())
            content[-100] ^= 1  # of a head: the two hashes that follow take 64 bytes
            path.write_bytes(content)
    read, original = [], Store.weights_path
    monkeypatch.setattr(Store, "weights_path", lambda self, one: read.append(one) or original(self, one))
    if missing == "other design":
        monkeypatch.setattr(
            "wisepatch.evaluation.linear.describe", lambda model: {"preprocess_cfg": {"mean": [0, 0, 0]}}
        )
    if missing == "other versions":
        monkeypatch.setattr("wisepatch.evaluation.linear.versions", lambda *_: {"torch": "0"})
    asked = tasks if missing == "other task" else tasks[:1]
    found = next(predict_many(mixes, asked, store, tmp_path, **speed))
    assert len(read) == 2
    if missing != "other task":
        read.clear()
        again = next(predict_many(mixes, asked, store, tmp_path, **speed))
        assert not read  # it is kept again
        assert np.array_equal(again.confidence, found.confidence)
    monkeypatch.setattr("wisepatch.evaluation.prediction.recall", lambda *_: None)
    expected = next(predict_many(mixes, asked, store, tmp_path, **speed))
    assert np.array_equal(found.predicted, expected.predicted)
    assert np.array_equal(found.confidence, expected.confidence)


def test_lines_of_recipes_are_never_recalled(linear, tasks, tmp_path):
    """They have no files of their own, by which what is kept could be told apart."""
    store, done = linear
    given = {
        "model": done.finetuned.model,
        "head": done.finetuned.head,
        "kind": "interpolated",
    }

    def mix(name, alpha, *parents):
        recipe = Recipe("linear", tuple(parent.id for parent in parents), {"alpha": alpha})
        return store.save(None, name=name, recipe=recipe, **given)

    ends = [mix(f"r{alpha}", alpha, done.zeroshot, done.finetuned) for alpha in (0.1, 0.4, 0.6, 0.9)]
    found = []
    for one, other in (ends[:2], ends[2:]):
        mixed = mix("m", 0.5, one, other)
        (seen,) = predict_many([mixed], tasks[:1], store, tmp_path, split="train")
        found.append(seen.confidence)
    assert not np.array_equal(*found)


def test_text_derived_heads_beside_a_linear_classifier_use_the_same_features(linear, tasks, tmp_path):
    store, done = linear
    (colors,) = predict_many([done.zeroshot, done.finetuned], tasks[1:], store, tmp_path)
    assert np.array_equal(colors.predicted[0], colors.predicted[1])  # the encoder did not change
    alone = next(predict_many([done.finetuned], tasks[1:], store, tmp_path))
    assert np.array_equal(alone.predicted[0], colors.predicted[0])


def test_linear_classifiers_on_different_encoders_do_not_share_features(run_store, finished, tasks, tmp_path):
    """One on the model as published, one on the fine-tuned one: together they answer as each does alone."""
    mixes = []
    for start in (None, finished[1].finetuned.id):
        config = TrainConfig.with_defaults(
            str(finished[0] / "shapes"), freeze_encoder=True, start=start, steps=3, batch_size=8, lr=1e-2, warmup=0
        )
        done = finetune(config, DEMO, run_store, tmp_path)
        swept = sweep(run_store, tmp_path, alphas=[0.5], checkpoint=done.finetuned.id, tasks=())
        mixes.append(swept.checkpoints[0.5])
    assert all(line.is_linear for line in gather_mixes(mixes, run_store, torch.device("cpu")))
    (together,) = predict_many(mixes, tasks[:1], run_store, tmp_path, split="train")
    for index, mix in enumerate(mixes):
        (alone,) = predict_many([mix], tasks[:1], run_store, tmp_path, split="train")
        assert np.allclose(alone.confidence[0], together.confidence[index], atol=1e-6)
    assert not np.allclose(together.confidence[0], together.confidence[1], atol=1e-3)


def test_progress_counts_every_image_for_every_checkpoint_as_it_goes(run_store, tasks, tmp_path):
    class Counting:
        def __init__(self):
            self.total, self.steps = 0, []

        def start(self, what, total):
            self.total, self.steps = total, []

        def advance(self, steps=1, detail=""):
            self.steps.append(steps)

        def finish(self):
            assert sum(self.steps) == self.total

        def note(self, text):
            raise AssertionError(text)

    counting = Counting()
    mixes = recipes(run_store, tmp_path)
    list(predict_many(mixes, tasks[:1], run_store, tmp_path, split="train", batch_size=4, progress=counting))
    assert counting.total == 12 * len(mixes)
    assert max(counting.steps) == 4  # a step a batch and checkpoint: no bar that stands still for a whole sweep
