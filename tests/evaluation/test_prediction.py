"""One pass over the data: the predictions of one run per checkpoint, each image decoded once, nothing read that is cached."""

import numpy as np
import pytest
import torch

from tests.samples import Notes, random_fishers, recipes, save_small_vit, with_head_of
from wisepatch import (
    ModelConfig,
    Store,
    TrainConfig,
    find_task,
    find_tasks,
    finetune,
    interpolate,
    load_clip,
    load_weights,
    predict_many,
    sweep,
)
from wisepatch.config import EvalConfig
from wisepatch.datasets.loading import checked, loader
from wisepatch.errors import ModelError, StoreError
from wisepatch.evaluation.passes import answer, class_logits
from wisepatch.models.classifier import Classifier

DEMO = ModelConfig("demo", "")
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def predict_one(checkpoints, task, store, data, split="train", **settings):
    (predictions,) = predict_many(checkpoints, [task], store, data, split=split, settings=EvalConfig(**settings))
    return predictions


def same_to_the_bit(one, other):
    return np.array_equal(one.predicted, other.predicted) and np.array_equal(one.confidence, other.confidence)


def test_one_pass_and_separate_runs_predict_the_same(run_store, tasks, tmp_path):
    mixes = recipes(run_store, ALPHAS)
    together = list(predict_many(mixes, tasks, run_store, tmp_path, split="train"))
    for index, mix in enumerate(mixes):
        alone = list(predict_many([mix], tasks, run_store, tmp_path, split="train"))
        for one, all_ in zip(alone, together, strict=True):
            assert np.array_equal(one.confidence[0], all_.confidence[index])
            assert np.array_equal(one.predicted[0], all_.predicted[index])
            assert np.array_equal(one.labels, all_.labels)
    assert len({p.predicted[i].tobytes() for p in together for i in range(len(mixes))}) > 2  # they do differ


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("method", ["linear", "fisher"])
@pytest.mark.parametrize("patch_size", [8, 32])
def test_a_sweep_gives_exactly_what_each_alpha_gives_alone(tasks, tmp_path, precision, method, patch_size):
    """Also with patches of 32 pixels in bf16, where a first layer that is interpolated after it is computed differs."""
    store = Store(tmp_path / "store")
    save_small_vit(store, tmp_path / "model", patch_size)
    mixes = recipes(store, (0.1, 0.4, 0.8), method=method, **random_fishers(store) if method == "fisher" else {})
    together = predict_one(mixes, tasks[0], store, tmp_path, mixed_precision=precision, batch_size=5)
    for index, mix in enumerate(mixes):
        alone = predict_one([mix], tasks[0], store, tmp_path, mixed_precision=precision, batch_size=5)
        assert np.array_equal(alone.confidence[0], together.confidence[index])
        assert np.array_equal(alone.predicted[0], together.predicted[index])
    assert not np.allclose(together.confidence[0], together.confidence[-1], atol=1e-3)


def test_every_image_is_decoded_once_whatever_the_number_of_alphas(run_store, tasks, tmp_path, decoded):
    predictions = predict_one(recipes(run_store, ALPHAS), tasks[0], run_store, tmp_path, workers=0)
    assert sorted(decoded) == list(range(12))
    assert predictions.predicted.shape == predictions.confidence.shape == (len(ALPHAS), 12)


def test_checkpoints_of_two_models_get_a_pass_each_with_their_own_preprocessing(run_store, tasks, tmp_path):
    save_small_vit(run_store, tmp_path / "model", 8)
    others = [run_store.find(name) for name in ("start", "end")]
    demos = [each for each in run_store.everything() if each.id not in {other.id for other in others}]
    order = [demos[0], others[1], demos[1], others[0]]
    notes = Notes()
    (mixed,) = predict_many(order, tasks[:1], run_store, tmp_path, split="train", progress=notes)
    assert [each.id for each in mixed.checkpoints] == [each.id for each in order]
    assert notes.total == sum(notes.steps) == 4 * 12
    for row, checkpoint in enumerate(order):
        assert np.array_equal(
            mixed.confidence[row], predict_one([checkpoint], tasks[0], run_store, tmp_path).confidence[0]
        )


def test_a_trained_head_at_every_alpha_answers_as_the_whole_model_does(shapes, tmp_path):
    store, (task,) = Store(tmp_path / "store"), find_tasks([str(shapes)])
    config = TrainConfig.with_defaults(str(shapes), steps=5, batch_size=8, lr=1e-2, head="trained", warmup=0)
    finetune(config, DEMO, store, tmp_path)
    mixes = recipes(store, ALPHAS)
    predictions = predict_one(mixes, task, store, tmp_path)
    for predicted, mix in zip(predictions.predicted, mixes, strict=True):
        assert predicted.tolist() == answers_of_whole_model(load_weights(store, mix), task, tmp_path)


def answers_of_whole_model(weights, task, data):
    clip = load_clip(DEMO, weights)
    classifier = Classifier(clip.model.visual, weights["classifier.weight"], weights["classifier.bias"]).eval()
    batches = loader(task.dataset.split("train", data, clip.transform), 64)
    with torch.inference_mode():
        return torch.cat([classifier(checked(batch)[0]).argmax(1) for batch in batches]).tolist()


def test_a_linear_probe_is_swept_over_features_that_are_computed_once(probe, tasks, tmp_path, decoded):
    """Logits are linear in alpha: the answers are those of a whole model at every alpha (WiSE-FT section 3)."""
    alphas = [index / 10 for index in range(11)]
    mixes = recipes(probe, alphas)
    first = predict_one(mixes, tasks[0], probe, tmp_path, split="val")
    assert len(decoded) == len(first.labels)
    assert same_to_the_bit(first, predict_one(mixes, tasks[0], probe, tmp_path, split="val"))
    trained = predict_one(mixes, tasks[0], probe, tmp_path)
    assert len(decoded) == len(first.labels)  # the features of train are in the store since the training
    assert len({row.tobytes() for row in trained.confidence}) == 11  # the heads do differ
    ends = [load_weights(probe, probe.find(kind)) for kind in ("zeroshot", "finetuned")]
    for alpha, predicted in zip(alphas, trained.predicted, strict=True):
        assert predicted.tolist() == answers_of_whole_model(interpolate(*ends, alpha), tasks[0], tmp_path)


def test_later_sweeps_of_a_linear_probe_build_no_model_and_read_no_weights(probe, tasks, tmp_path, monkeypatch):
    coarse, fine = recipes(probe, ALPHAS), recipes(probe, (0.1, 0.5, 0.9))
    first = predict_one(coarse, tasks[0], probe, tmp_path)
    whole = [predict_one([mix], tasks[0], probe, tmp_path, split="test") for mix in fine]
    monkeypatch.setattr(Store, "weights_path", lambda self, checkpoint: pytest.fail("weights were read"))
    monkeypatch.setattr("wisepatch.evaluation.endpoints.load_clip", lambda *_: pytest.fail("a model was built"))
    again = predict_one(coarse, tasks[0], probe, tmp_path)
    assert same_to_the_bit(first, again)
    assert np.array_equal(first.labels, again.labels)
    together = predict_one(fine, tasks[0], probe, tmp_path, split="test")
    for index, one in enumerate(whole):
        assert np.array_equal(together.confidence[index], one.confidence[0])
    assert not np.array_equal(first.confidence[0], first.confidence[-1])


@pytest.mark.parametrize("missing", ["entry", "one bit", "other precision", "other versions", "other design"])
def test_a_model_is_read_where_the_features_of_a_linear_probe_are_not_cached(
    probe, tasks, tmp_path, weights_read, monkeypatch, missing
):
    mixes = recipes(probe, ALPHAS)
    expected = predict_one(mixes, tasks[0], probe, tmp_path)
    (folder,) = (probe.root / "cache" / "features").iterdir()
    weights_read.clear()
    if missing == "entry":
        (folder / "entry.json").unlink()
    elif missing == "one bit":
        damage(folder / "tensors.safetensors")
    elif missing == "other design":
        monkeypatch.setattr("wisepatch.evaluation.features.describe", lambda model: {"preprocess_cfg": {"mean": [0]}})
    elif missing == "other versions":
        monkeypatch.setattr("wisepatch.evaluation.features.versions", lambda *packages: {"torch": "0"})
    settings = {"mixed_precision": "bf16" if missing == "other precision" else "no"}
    again = predict_one(mixes, tasks[0], probe, tmp_path, **settings)
    assert len(weights_read) == 1
    assert same_to_the_bit(again, predict_one(mixes, tasks[0], probe, tmp_path, **settings))
    assert len(weights_read) == 1  # it is cached again
    # Training computed the first ones, in other batches.
    assert np.allclose(again.confidence, expected.confidence, atol=0.05 if missing == "other precision" else 1e-5)


def damage(path):
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


def test_flipped_bits_in_a_trained_head_are_an_error_also_where_nothing_else_is_read(probe, tasks, tmp_path):
    mixes = recipes(probe, ALPHAS)
    predict_one(mixes, tasks[0], probe, tmp_path)
    path = probe.find("finetuned").home / "model.safetensors"
    weights, content = load_weights(probe, probe.find("finetuned")), bytearray(path.read_bytes())
    place = content.find(weights["classifier.weight"].numpy().tobytes())
    content[place + 7] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="its classifier tensors do not have the hash"):
        predict_one(mixes, tasks[0], probe, tmp_path)


def test_a_damaged_text_derived_head_is_made_again(run_store, tasks, tmp_path):
    """One flipped bit in an exponent takes the accuracy away without a word, where nothing hashes what was cached."""
    end = run_store.find("finetuned")
    expected = predict_one([end], tasks[1], run_store, tmp_path, split="val")
    for path in (run_store.root / "cache" / "heads").glob("*/tensors.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 0x40
        path.write_bytes(content)
    assert run_store.cache.problems()
    assert same_to_the_bit(expected, predict_one([end], tasks[1], run_store, tmp_path, split="val"))


def test_probes_on_recipes_are_told_apart_by_their_towers(probe, tasks, tmp_path):
    """Recipes have no hashes of their parts, by which what is cached could be told apart."""
    inner = recipes(probe, (0.1, 0.4, 0.6, 0.9))
    confidences = [
        predict_one(recipes(probe, [0.5], parents=ends), tasks[0], probe, tmp_path).confidence
        for ends in (inner[:2], inner[2:])
    ]
    assert not np.array_equal(*confidences)


def test_linear_probes_on_different_towers_do_not_share_features(run_store, finished, tasks, tmp_path):
    """One on the model as published, one on the fine-tuned one: together they answer as each does alone."""
    mixes = []
    for start in (None, finished[1].finetuned.id):
        config = TrainConfig.with_defaults(
            str(finished[0] / "shapes"), freeze_encoder=True, start=start, steps=3, batch_size=8, lr=1e-2, warmup=0
        )
        done = finetune(config, DEMO, run_store, tmp_path)
        mixes += recipes(run_store, [0.5], parents=(done.zeroshot, done.finetuned))
    together = predict_one(mixes, tasks[0], run_store, tmp_path)
    for index, mix in enumerate(mixes):
        alone = predict_one([mix], tasks[0], run_store, tmp_path)
        assert np.allclose(alone.confidence[0], together.confidence[index], atol=1e-6)
    assert not np.allclose(together.confidence[0], together.confidence[1], atol=1e-3)


def test_neighbouring_tasks_with_the_same_images_share_one_pass(run_store, shapes, tmp_path, decoded):
    """Other names for the classes, another order of them, the same files: each image is decoded and encoded once."""
    lines = [f"{path},{path.parent.name},test" for path in sorted(shapes.rglob("*.png"))]
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,label,split", *lines]))
    one = find_task(str(tmp_path / "one.csv"))
    two = find_task(str(tmp_path / "two.csv"), classnames=("ring", "box", "hat"))
    ends = [run_store.find("zeroshot"), run_store.find("finetuned")]
    apart = [predict_one(ends, task, run_store, tmp_path, split="test") for task in (one, two)]
    assert len(decoded) == 2 * len(lines)
    notes = Notes()
    together = list(predict_many(ends, [one, two], run_store, tmp_path, progress=notes))
    assert len(decoded) == 3 * len(lines)
    assert notes.total == sum(notes.steps) == 2 * len(lines)
    for alone, shared, task in zip(apart, together, (one, two), strict=True):
        assert shared.task == task
        assert same_to_the_bit(alone, shared)
        assert np.array_equal(alone.labels, shared.labels)
        assert shared.image_ids == alone.image_ids
    assert not np.array_equal(together[0].predicted, together[1].predicted)


def test_a_task_with_the_head_of_another_task_is_measured_under_that_head(run_store, probe, tasks, tmp_path):
    """A maximum of logits keeps the winner: of text-derived heads, trained ones, and those of a linear probe's mixes."""
    for store, checkpoints in (
        (run_store, recipes(run_store, ALPHAS)), (probe, [probe.find("finetuned")]), (probe, recipes(probe, ALPHAS)),
    ):  # fmt: skip
        whole = predict_one(checkpoints, tasks[0], store, tmp_path)
        half = predict_one(checkpoints, with_head_of(tasks[0]), store, tmp_path)
        assert set(np.unique(whole.predicted)) > {0, 1}
        assert np.array_equal(half.predicted, np.minimum(whole.predicted, 1))


def test_a_class_has_the_largest_logit_of_those_that_it_stands_for():
    logits = torch.tensor([[1.0, 5.0, 2.0, 9.0], [-3.0, -2.0, -8.0, -1.0]])
    assert class_logits(())(logits) is logits
    assert class_logits(((2,), (0,)))(logits).tolist() == [[2.0, 1.0], [-8.0, -3.0]]
    assert class_logits(((0, 1), (2,), ()))(logits).tolist() == [[5.0, 2.0, -torch.inf], [-2.0, -8.0, -torch.inf]]


def test_confidence_is_the_probability_of_the_predicted_class():
    logits = torch.tensor([[0.0, 2.0, -torch.inf], [1.0, 1.0, 1.0]])
    classes, probabilities, _, _ = answer(logits, torch.tensor([0, 2]))
    assert classes[0] == 1
    assert probabilities.tolist() == pytest.approx([float(torch.sigmoid(torch.tensor(2.0))), 1 / 3])


def test_rank_and_brier_score_are_those_of_scikit_learn_and_go_with_the_answer():
    pytest.importorskip("sklearn", "1.7")  # the first with a Brier score of several classes
    from sklearn.metrics import brier_score_loss, top_k_accuracy_score

    logits = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)).round(decimals=1)  # with ties
    labels = torch.arange(200) % 6
    classes, _, rank, brier = answer(logits, labels)
    assert torch.equal(rank == 0, classes == labels)
    untied = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
    _, _, rank, brier = answer(untied, labels)
    probabilities = untied.softmax(1).numpy()
    assert float((rank < 3).double().mean()) == top_k_accuracy_score(labels, probabilities, k=3)
    assert float(brier.mean()) == pytest.approx(
        brier_score_loss(labels, probabilities, labels=range(6), scale_by_half=False), abs=1e-6
    )
    _, _, rank, brier = answer(untied[:2], torch.tensor([-1, 6]))
    assert rank.tolist() == [6, 6]
    assert (brier > 1).all()


def test_bf16_agrees_with_fp32_on_nearly_all_images(run_store, tasks, tmp_path):
    full, half = (
        predict_one([run_store.find("zeroshot")], tasks[1], run_store, tmp_path, split="val", mixed_precision=precision)
        for precision in ("no", "bf16")
    )
    assert (full.predicted == half.predicted).mean() > 0.97


def test_logits_that_are_no_numbers_are_an_error_that_names_the_checkpoint(run_store, tasks, tmp_path, monkeypatch):
    """Of weights that are numbers, but too large; a class drawn from NaN would be the first one."""
    start = run_store.find("zeroshot")
    weights = load_weights(run_store, start)
    huge = {"visual.head.proj.weight": torch.full_like(weights["visual.head.proj.weight"], 3e38)}
    end = run_store.save(weights | huge, kind="zeroshot", name="huge", model=start.model, training="zeroshot")
    with pytest.raises(ModelError, match=rf"huge \({end.id}\) gives NaN for 12 of 12 images of shapes \(train\)"):
        predict_one([start, end], tasks[0], run_store, tmp_path)


def test_progress_counts_every_image_for_every_checkpoint_as_it_goes(run_store, tasks, tmp_path):
    notes, mixes = Notes(), recipes(run_store, ALPHAS)
    settings = EvalConfig(batch_size=4)
    list(predict_many(mixes, tasks[:1], run_store, tmp_path, split="train", settings=settings, progress=notes))
    assert notes.total == sum(notes.steps) == 12 * len(mixes)
    assert max(notes.steps) == 4  # a step a batch and checkpoint: no bar that stands still for a whole sweep
    assert notes.notes == []


def test_any_number_of_materialised_mixes_holds_two_endpoints(run_store, tasks, tmp_path, monkeypatch):
    swept = sweep(run_store, tmp_path, alphas=(0.2, 0.4, 0.6, 0.8), tasks=(), materialize=True)
    mixes = list(swept.checkpoints.values())
    assert not any(mix.is_recipe for mix in mixes)
    read, original = [], Store.read
    monkeypatch.setattr(
        Store, "read", lambda self, checkpoint: read.append(checkpoint.id) or original(self, checkpoint)
    )
    list(predict_many(mixes, tasks[:1], run_store, tmp_path))
    assert sorted(read) == sorted(mixes[0].parents)
    weights = mixes[1].home / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-20] ^= 1
    weights.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged"):
        list(predict_many(mixes, tasks[:1], run_store, tmp_path))
