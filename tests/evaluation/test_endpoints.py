"""Mixes of endpoints: read once, written into one working copy, told apart by their parts, whatever they are mixed from."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.samples import recipes, with_head_of
from wisepatch import ModelConfig, Store, TrainConfig, finetune, interpolate, load_clip, load_weights, predict_many
from wisepatch.errors import StoreError, UsageError
from wisepatch.evaluation import endpoints as endpoints_module
from wisepatch.evaluation import kept_merges
from wisepatch.evaluation.endpoints import Endpoints, mixes_of
from wisepatch.evaluation.heads import Heads
from wisepatch.plugins import find_merge_method
from wisepatch.store.checkpoints import MANIFEST, WEIGHTS, Recipe, describe
from wisepatch.weights.parameters import read_params
from wisepatch.weights.streaming import stream_weights

DEMO, CPU = ModelConfig("demo", ""), torch.device("cpu")
ALPHAS = (0.0, 0.2, 0.5, 0.9, 1.0)


def gather(checkpoints, store):
    return mixes_of(checkpoints, Endpoints(store, CPU))


def same(one, other):
    return np.array_equal(one.predicted, other.predicted) and np.array_equal(one.confidence, other.confidence)


def predicted_alone(checkpoint, task, store, data, **options):
    (predictions,) = predict_many([checkpoint], [task], store, data, split="train", **options)
    return predictions.predicted[0].tolist(), predictions.confidence[0].tolist()


def save_like(store, checkpoint, weights, name):
    return store.save(
        weights, kind=checkpoint.kind, name=name, model=checkpoint.model, training=checkpoint.training, head=checkpoint.head,
        config=checkpoint.config, trained_from=checkpoint.trained_from,
    )  # fmt: skip


def make_old(store):
    """Write all manifests as the first schema had them: no hashes of parts, no recipes of more than alpha."""
    for checkpoint in store.everything():
        new = ("training", "recipe", "trained_from", "parts")
        fields = {name: value for name, value in describe(checkpoint).items() if name not in new}
        old = {"schema": 1, "method": checkpoint.training, "parents": checkpoint.parents, "alpha": checkpoint.alpha}
        (checkpoint.home / MANIFEST).write_text(json.dumps(fields | old))
    assert {checkpoint.schema for checkpoint in store.everything()} == {1}


def test_two_endpoints_are_read_once_whatever_the_number_of_alphas(run_store, tasks, tmp_path, weights_read):
    ends = [run_store.find("zeroshot"), run_store.find("finetuned")]
    mixes = recipes(run_store, ALPHAS)
    weights_read.clear()
    list(predict_many([*ends, *mixes], tasks, run_store, tmp_path))
    assert sorted(weights_read) == sorted(end.id for end in ends)


def test_nothing_is_read_to_tell_what_a_mix_is_made_of(run_store, weights_read):
    mixes = gather([run_store.find("zeroshot"), *recipes(run_store, ALPHAS)], run_store)
    assert len({mix.visual for mix in mixes}) == 1 + len(ALPHAS)
    assert len({mix.text for mix in mixes}) == 1
    assert not any(mix.is_probe for mix in mixes)
    assert not weights_read


def test_weights_in_the_working_copy_are_the_interpolated_ones(run_store):
    alphas = (1.0, 0.3, 0.0, 0.7)
    start, end = (load_weights(run_store, run_store.find(kind)) for kind in ("zeroshot", "finetuned"))
    mixes = gather(recipes(run_store, alphas), run_store)
    visual = mixes[0].endpoints.clip(mixes[0].parents[0]).model.visual
    for alpha, mix in zip(alphas, mixes, strict=True):
        mix.set_weights(visual)
        expected = interpolate(start, end, alpha)
        for name, tensor in visual.state_dict().items():
            assert torch.equal(tensor, expected[f"visual.{name}"]), name


def test_a_checkpoint_given_twice_is_measured_twice(run_store, tasks, tmp_path):
    end, (mix,) = run_store.find("finetuned"), recipes(run_store, [0.5])
    (predictions,) = predict_many([mix, end, mix, end], tasks[:1], run_store, tmp_path, split="train")
    assert [each.id for each in predictions.checkpoints] == [mix.id, end.id, mix.id, end.id]
    assert np.array_equal(predictions.confidence[:2], predictions.confidence[2:])
    assert not np.array_equal(predictions.confidence[0], predictions.confidence[1])


def test_recipes_of_recipes_are_mixed_as_their_weights_are(run_store, tasks, tmp_path):
    outer = recipes(run_store, [0.5], parents=recipes(run_store, [0.25, 0.75]))[0]
    written = save_like(run_store, run_store.find("finetuned"), load_weights(run_store, outer), "written")
    (predictions,) = predict_many([outer, written], tasks[:1], run_store, tmp_path, split="train")
    assert np.array_equal(*predictions.confidence)
    assert gather([outer], run_store)[0].visual != gather(recipes(run_store, [0.5]), run_store)[0].visual


def test_sums_of_task_vectors_share_ends_text_and_one_pass(run_store, tasks, tmp_path, weights_read):
    start, end = run_store.find("zeroshot"), run_store.find("finetuned")
    moved = {
        name: tensor * 1.05 if name.startswith("visual.") else tensor
        for name, tensor in load_weights(run_store, end).items()
    }
    parents = (start.id, end.id, save_like(run_store, end, moved, "moved").id)
    sums = [
        run_store.save(
            None, kind="interpolated", name=f"{params}", model=end.model, training=end.training,
            recipe=Recipe("task-arithmetic", parents, params),
        )
        for params in ({"alpha": 0.0}, {"alpha": 0.4}, {"alphas": [0.6, -0.2]}, {"alphas": [1.0, 0.0]})
    ]  # fmt: skip
    mixes = gather(sums, run_store)
    assert {mix.text for mix in mixes} == {start.parts["text"]}
    weights_read.clear()
    (together,) = predict_many(sums, tasks[:1], run_store, tmp_path, split="train")
    assert sorted(weights_read) == sorted(parents)
    for index, each in enumerate(sums):
        written = save_like(run_store, end, load_weights(run_store, each), "written")
        predicted, confidence = predicted_alone(written, tasks[0], run_store, tmp_path)
        assert together.predicted[index].tolist() == predicted
        assert together.confidence[index].tolist() == confidence
    for index, parent in ((0, start), (3, end)):
        assert together.confidence[index].tolist() == predicted_alone(parent, tasks[0], run_store, tmp_path)[1]


METHODS = [
    ("linear", {"weights": [1, 2, 3]}), ("ties", {"density": 0.3, "scale": 0.7}), ("dare", {"drop": 0.3, "scale": 0.5}),
    ("breadcrumbs", {}), ("lines", {"beta": 0.3}), ("model-stock", {}), ("tsv-m", {}), ("iso-c", {"scale": 0.8}), ("iso-cts", {}),
    ("tsv-m", {"layers": {"": 0.5, "visual.trunk.blocks.3": 0.1}}), ("task-arithmetic", {"layers": {"visual.head": 0}}),
    ("regmean", {}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "params"), METHODS)
def test_merges_in_evaluation_are_those_of_their_weights(run_store, tasks, tmp_path, method, params):
    start, end = run_store.find("zeroshot"), run_store.find("finetuned")
    weights, own = load_weights(run_store, end), find_merge_method(method)
    near = [
        save_like(
            run_store, end, {n: t * scale if n.startswith("visual.") else t for n, t in weights.items()}, f"{scale}"
        )
        for scale in (1.05, 0.97)
    ]
    parents = tuple(each.id for each in ([start] if own.from_start else []) + [end, *near])
    if own.needs_grams:
        inputs = torch.randn(300, 256)
        run_store.cache.tensors("grams", "a" * 32, lambda: {"visual.head.proj.weight": inputs.T @ inputs})
        params = {"gram": {"files": [["a" * 32, run_store.cache.sha256("grams", "a" * 32)]] * 3}}
    recipe = Recipe(method, parents, {**read_params(own, [])[0], **params})
    mix = run_store.save(None, kind="merged", name="mix", model=end.model, training=end.training, recipe=recipe)
    assert run_store.problem(mix) == ""
    written = save_like(run_store, end, load_weights(run_store, mix), "written")
    (answers,) = predict_many([mix, written], tasks[:1], run_store, tmp_path, split="train")
    assert np.array_equal(*answers.confidence)
    assert not np.array_equal(answers.confidence[0], predicted_alone(start, tasks[0], run_store, tmp_path)[1])


def test_a_costly_merge_is_made_once_for_all_scales_and_for_the_next_evaluation(
    run_store, tasks, tmp_path, monkeypatch
):
    start, end = run_store.find("zeroshot"), run_store.find("finetuned")
    made = []
    aside = []
    merge, set_aside = kept_merges.merge_read_tensors, kept_merges.set_aside
    monkeypatch.setattr(kept_merges, "merge_read_tensors", lambda *given: made.append(1) or merge(*given))
    monkeypatch.setattr(
        kept_merges, "set_aside", lambda each, *given: aside.append(len(each)) or set_aside(each, *given)
    )
    scales = (0.0, 0.5, 1.0)

    def mixes(method, **params):
        return [
            run_store.save(
                None, kind="merged", name=f"{scale}", model=end.model, training=end.training,
                recipe=Recipe(method, (start.id, end.id), {**params, "scale": scale}),
            )
            for scale in scales
        ]  # fmt: skip

    for _ in range(2):
        (answers,) = predict_many(mixes("tsv-m"), tasks[:1], run_store, tmp_path, split="train")
        assert len(made) == 1
    assert set(aside) == {1}  # never two merged tensors in memory
    assert answers.confidence[0].tolist() == predicted_alone(start, tasks[0], run_store, tmp_path)[1]
    dare = {"drop": 0.5, "seed": 0}
    list(predict_many([*mixes("dare", **dare), *mixes("dare", **dare | {"seed": 1})], tasks[:1], run_store, tmp_path))
    assert len(made) == 3


def test_checkpoints_of_the_first_schema_give_what_they_gave(run_store, probe, tasks, tmp_path, weights_read):
    for store, are_probes in ((run_store, False), (probe, True)):
        mixes = recipes(store, ALPHAS)
        (before,) = predict_many(mixes, tasks[:1], store, tmp_path, split="train")
        make_old(store)
        old = [store.get(mix.id) for mix in mixes]
        assert not any(parent.parts for mix in old for parent in store.parents(mix))
        assert all(mix.is_probe == are_probes for mix in gather(old, store))
        weights_read.clear()
        (after,) = predict_many(old, tasks[:1], store, tmp_path, split="train")
        assert same(before, after)
        assert len(weights_read) == 2


@pytest.mark.parametrize("method", ["linear", "fisher"])
def test_recipes_and_their_materialised_weights_predict_the_same(run_store, tasks, tmp_path, method):
    ends = [run_store.find("zeroshot"), run_store.find("finetuned")]
    params = fisher_params(run_store, load_weights(run_store, ends[0])) if method == "fisher" else {}
    mix, linear = recipes(run_store, [0.5], method=method, **params)[0], recipes(run_store, [0.5])[0]

    def write(path):
        files, fishers = [end.home / WEIGHTS for end in ends], run_store.fisher_paths(mix)
        return stream_weights(gather([mix], run_store)[0].method, files, mix.recipe.params, path, fishers=fishers)

    written = save_like(run_store, ends[1], write, "written")
    (predictions,) = predict_many([mix, written, linear], tasks[:1], run_store, tmp_path, split="train")
    assert np.array_equal(predictions.confidence[0], predictions.confidence[1])
    assert np.array_equal(predictions.confidence[0], predictions.confidence[2]) == (method == "linear")


def fisher_params(store, weights):
    generator, files = torch.Generator().manual_seed(1), []
    for digest in ("aa", "bb"):
        tensors = {name: torch.rand(tensor.shape, generator=generator) for name, tensor in weights.items()}
        store.cache.tensors("fisher", digest, lambda tensors=tensors: tensors)
        files.append([digest, store.cache.sha256("fisher", digest)])
    return {"fisher": {"files": files, "examples": 1, "seed": 0}}


def test_every_mix_of_different_text_towers_has_a_head_of_its_own(run_store, tasks, tmp_path):
    start, weights = run_store.find("zeroshot"), load_weights(run_store, run_store.find("finetuned"))
    generator = torch.Generator().manual_seed(2)
    moved = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point() and not name.startswith(("visual.", "logit_scale")) else tensor
        for name, tensor in weights.items()
    }  # fmt: skip
    end = save_like(run_store, run_store.find("finetuned"), moved, "other text")
    ends = [start, end, *recipes(run_store, [0.3, 0.6], parents=(start, end))]
    mixes = gather(ends, run_store)
    assert len({mix.text for mix in mixes}) == 4
    (together,) = predict_many(ends, tasks[:1], run_store, tmp_path, split="train")
    heads = Heads(tasks[0], mixes[0].endpoints)
    for row, checkpoint in enumerate(ends):
        assert predicted_alone(checkpoint, tasks[0], run_store, tmp_path) == (
            together.predicted[row].tolist(), together.confidence[row].tolist()
        )  # fmt: skip
        expected = load_weights(run_store, checkpoint)
        actual = mixes[row].clip_for_text().text_weights
        assert all(torch.equal(tensor, expected[name]) for name, tensor in actual.items())
        heads.of(mixes[row])
    assert len(heads.from_text) == 4


def test_trained_heads_are_mixed_as_whole_weights_are(shapes, tasks, tmp_path):
    store = Store(tmp_path / "store")
    config = TrainConfig.with_defaults(str(shapes), steps=5, batch_size=8, lr=1e-2, head="trained", warmup=0)
    done = finetune(config, DEMO, store, tmp_path)
    ends = [load_weights(store, each) for each in (done.zeroshot, done.finetuned)]
    for alpha, mix in zip(ALPHAS, gather(recipes(store, ALPHAS), store), strict=True):
        expected = interpolate(*ends, alpha)
        weight, bias = Heads(tasks[0], mix.endpoints).of(mix)
        assert torch.equal(weight, expected["classifier.weight"])
        assert torch.equal(bias, expected["classifier.bias"])
        assert not mix.is_probe


def test_a_trained_head_serves_the_tasks_with_its_classes_alone(probe, tasks):
    (mix,) = gather([probe.find("finetuned")], probe)
    assert Heads(tasks[0], mix.endpoints).is_trained(mix)
    assert Heads(with_head_of(tasks[0]), mix.endpoints).is_trained(mix)
    assert not Heads(tasks[1], mix.endpoints).is_trained(mix)
    assert Heads(tasks[1], mix.endpoints).of(mix)[1] is None


def test_text_derived_heads_are_those_of_the_text_tower_alone(probe, tasks, tmp_path):
    (colors,) = predict_many([probe.find("zeroshot"), probe.find("finetuned")], tasks[1:], probe, tmp_path)
    assert np.array_equal(*colors.confidence)  # the head of shapes has no part in colours
    (alone,) = predict_many([probe.find("finetuned")], tasks[1:], probe, tmp_path)
    assert np.array_equal(alone.confidence[0], colors.confidence[0])


def test_checkpoints_of_different_architectures_cannot_be_mixed(run_store, tasks, tmp_path):
    start, end = run_store.find("zeroshot"), run_store.find("finetuned")
    smaller = {name: each for name, each in load_weights(run_store, end).items() if "conv_stem" not in name}
    other = save_like(run_store, end, smaller, "smaller")
    mixes = recipes(run_store, [0.5], parents=(start, other))
    with pytest.raises(StoreError, match=r"different architectures: 1 tensors are in one of them only, such as visual"):
        list(predict_many(mixes, tasks, run_store, tmp_path))


def test_probes_with_heads_of_other_classes_cannot_be_mixed(probe, tasks, tmp_path):
    start, end = probe.find("zeroshot"), probe.find("finetuned")
    weights = load_weights(probe, end)
    cut = save_like(probe, end, weights | {"classifier.bias": weights["classifier.bias"][:2].clone()}, "cut")
    with pytest.raises(StoreError, match=r"1 shapes differ, such as classifier.bias \(3,\) and \(2,\)"):
        list(predict_many(recipes(probe, [0.5], parents=(start, cut)), tasks[:1], probe, tmp_path))


@pytest.mark.parametrize("method", ["linear", "fisher"])
def test_on_a_full_device_tensors_are_copied_there_when_a_mix_needs_them(run_store, monkeypatch, method):
    start, end = run_store.find("zeroshot"), run_store.find("finetuned")
    recipe = Recipe("linear", (start.id, end.id), {"alpha": 0.5})
    mix = run_store.save(None, kind="interpolated", name="half", model=end.model, training=end.training, recipe=recipe)
    rooms = iter([True, False, False, False])
    monkeypatch.setattr(endpoints_module, "has_room", lambda device, size: next(rooms))
    device = torch.device("meta")  # stands for a GPU: tensors of both cannot be mixed
    endpoints = Endpoints(run_store, device)
    (made,) = mixes_of([mix], endpoints)
    name = "visual.head.proj.weight"
    if method == "fisher":
        halves = tuple(endpoints.held({name: torch.ones_like(load_weights(run_store, end)[name])}) for _ in range(2))
        made = replace(made, method=find_merge_method("fisher"), fishers=halves)
    assert made.tensor(name).device == device
    assert {endpoints.weights(each)[name].device.type for each in (start, end)} == (
        {"meta", "cpu"} if method == "linear" else {"cpu"}
    )


def test_no_checkpoint_is_an_error(run_store):
    with pytest.raises(UsageError, match="no checkpoint to evaluate"):
        gather([], run_store)


@pytest.mark.parametrize("name", ["visual.head.proj.weight", "token_embedding.weight"])
@pytest.mark.parametrize(("mixed", "number"), [(False, torch.nan), (True, torch.nan), (True, torch.inf)])
def test_a_checkpoint_with_nan_is_named_before_anything_is_measured(
    run_store, tasks, tmp_path, decoded, name, mixed, number
):
    start, end = run_store.find("zeroshot"), run_store.find("finetuned")
    weights = load_weights(run_store, end)
    weights[name] = weights[name].clone()
    weights[name].view(-1)[3] = number
    broken = save_like(run_store, end, weights, "broken")
    checkpoints = recipes(run_store, [0.5], parents=(start, broken)) if mixed else [broken]
    with pytest.raises(
        StoreError, match=rf"{broken.id} \(broken\) holds NaN or infinities in 1 tensor, such as {name}"
    ) as caught:
        list(predict_many(checkpoints, tasks, run_store, tmp_path))
    assert "store rm" in caught.value.hint
    assert not decoded


def test_a_head_with_nan_is_named(probe, tasks, tmp_path):
    start, end = probe.find("zeroshot"), probe.find("finetuned")
    weights = load_weights(probe, end)
    broken = save_like(probe, end, weights | {"classifier.bias": weights["classifier.bias"] * torch.nan}, "broken")
    with pytest.raises(
        StoreError, match=rf"{broken.id} \(broken\) holds NaN or infinities in 1 tensor, such as classifier.bias"
    ):
        list(predict_many(recipes(probe, [0.5], parents=(start, broken)), tasks[:1], probe, tmp_path))


def test_infinities_of_a_mask_are_no_reason(run_store, tasks):
    end = run_store.find("finetuned")
    masked = save_like(run_store, end, load_weights(run_store, end) | {"mask": torch.tensor([-torch.inf, 0])}, "masked")
    assert load_file(masked.home / WEIGHTS)["mask"].isinf().any()
    endpoints = Endpoints(run_store, CPU)
    endpoints._clips[DEMO] = load_clip(DEMO)  # a model without that buffer
    assert endpoints.weights(masked)


def test_merges_of_three_parents_are_mixes_too(run_store, tasks, tmp_path, monkeypatch):
    from wisepatch.evaluation import endpoints as module
    from wisepatch.hookspecs import MergeMethod
    from wisepatch.store import recipes as merging

    mean = MergeMethod("mean", lambda parents, params, out=None: torch.stack(list(parents)).mean(0))
    for each in (module, merging):
        monkeypatch.setattr(each, "find_merge_method", lambda name: mean)
    start, end = run_store.find("zeroshot"), run_store.find("finetuned")
    parents = (start.id, end.id, end.id)
    mix = run_store.save(
        None, kind="interpolated", name="mean", model=end.model, recipe=Recipe("mean", parents, {}), training="paint"
    )
    written = save_like(run_store, end, load_weights(run_store, mix), "written")
    (predictions,) = predict_many([mix, written], tasks[:1], run_store, tmp_path, split="train")
    assert np.array_equal(*predictions.predicted)
    assert np.allclose(*predictions.confidence, atol=1e-6)  # where weights lie in memory decides about a last bit


def test_a_trained_head_that_other_class_names_put_aside_is_told(probe, tasks):
    from wisepatch.datasets.renaming import renamed

    notes, (mix,) = [], gather([probe.find("finetuned")], probe)
    other = replace(tasks[0], dataset=renamed(tasks[0].dataset, [f"my {n}" for n in tasks[0].dataset.classes], None))
    Heads(other, mix.endpoints, notes.append).of(mix)
    assert notes == [
        f"{mix.checkpoint.name} was trained with other class names: {other.name} has a head from text here"
    ]
