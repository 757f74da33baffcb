"""Merging several checkpoints: candidates, the choice, ensembles of outputs, greedy soups, and what is refused before any work."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from wisepatch import Store, load_weights
from wisepatch.config import EvalConfig
from wisepatch.errors import DataError, StoreError, UnknownNameError, UsageError, WisepatchError
from wisepatch.evaluation.endpoints import Endpoints, mixes_of
from wisepatch.evaluation.output_ensembles import ensembles, output_weights
from wisepatch.evaluation.passes import Pass
from wisepatch.evaluation.prediction import predict_many
from wisepatch.plugins import find_merge_method
from wisepatch.progress import Silent
from wisepatch.store.checkpoints import Recipe
from wisepatch.store.results import load
from wisepatch.tasks import find_task, find_tasks
from wisepatch.training import gram_matrices
from wisepatch.workflows import merge_parents
from wisepatch.workflows.greedy_soup import greedy_soup
from wisepatch.workflows.merge_parents import tasks_of
from wisepatch.workflows.merging import merge


def save_end(store, end, name, scale, **other):
    """Another end of the same start, whose image tower is moved."""
    weights = {
        key: tensor * scale if key.startswith("visual.") else tensor for key, tensor in load_weights(store, end).items()
    }
    fields = {
        "kind": "finetuned", "model": end.model, "training": end.training, "config": end.config, "head": end.head,
        "trained_from": end.trained_from,
    }  # fmt: skip
    return store.save(weights, name=name, **{**fields, **other})


@pytest.fixture
def ends(run_store):
    """Three ends of one start."""
    end = run_store.find("finetuned")
    return [end, save_end(run_store, end, "larger", 1.03), save_end(run_store, end, "smaller", 0.98)]


@pytest.fixture
def tasks(finished):
    return find_tasks([str(finished[0] / "shapes")])


@pytest.fixture
def weights_read(monkeypatch):
    """The ids of checkpoints whose whole weights are read, which are verified first."""
    ids, original = [], Store.weights_path
    monkeypatch.setattr(Store, "weights_path", lambda self, each: ids.append(each.id) or original(self, each))
    return ids


@pytest.fixture
def run(run_store, ends, tmp_path):
    """Merge the three ends, on eight images of a split."""

    def merged(checkpoints=ends, **options):
        return merge(run_store, tmp_path, checkpoints, **{"limit": 8, "tasks": [], **options})

    return merged


def test_a_merge_without_more_is_the_uniform_soup_and_is_stored(run, run_store, ends):
    done = run()
    assert done.chosen.kind == "merged"
    assert done.chosen.recipe == Recipe("linear", tuple(end.id for end in ends), {"weights": [1.0, 1.0, 1.0]})
    assert run_store.find("merged").id == done.chosen.id
    weights = [load_weights(run_store, end) for end in ends]
    for name, tensor in load_weights(run_store, done.chosen).items():
        assert torch.allclose(tensor, sum(each[name] for each in weights) / 3, atol=1e-6)
    assert {row["split"] for row in done.rows} == {"test"}
    assert [(each.kind, each.number) for each in done.candidates] == [("start", 0), *[("end", None)] * 3, ("merged", 1)]


def test_start_ends_and_all_candidates_are_measured_in_one_pass_and_one_is_chosen(run, run_store, ends, weights_read):
    params = ["alpha=0:1:0.5"]
    done = run(method="task-arithmetic", params=params, rule="best-mean", run_name="mine")
    assert sorted(weights_read) == sorted(
        [done.candidates[0].checkpoint.id, *(end.id for end in ends)] * 2
    )  # val and test
    of_split = {split: [row for row in done.rows if row["split"] == split] for split in ("val", "test")}
    assert [row["candidate"] for row in of_split["val"]] == [0, None, None, None, 1, 2, 3]
    assert [row["alpha"] for row in of_split["val"]] == [0.0, None, None, None, 0.0, 0.5, 1.0]
    scores = {row["candidate"]: row["value"] for row in of_split["val"] if row["candidate"] is not None}
    assert done.choice.number == min(number for number, score in scores.items() if score == max(scores.values()))
    assert {row["candidate"] for row in of_split["test"]} == {0, None, done.choice.number}
    assert [row["chosen"] for row in of_split["val"] if row["candidate"] == done.choice.number] == [True]
    assert {row["selected_on"] for row in done.rows} == {"val"}
    rows = load(run_store)
    assert set(rows["method"].dropna()) >= {"task-arithmetic"}
    if done.choice.number:
        assert (done.chosen.name, done.chosen.config["select"]) == ("mine", "best-mean")


def test_a_choice_among_candidates_says_nothing_of_certified_drops(run):
    done = run(method="task-arithmetic", params=["alpha=0.5,1"], rule="max-drop=0.9", tasks=["Colors"])
    assert (done.note, done.facts) == ("", {})


def test_scales_of_layers_are_not_written_out_in_labels(run):
    done = run(method="task-arithmetic", layers=["0.2:1"])
    assert done.candidates[-1].label == "alpha=0.4, layers scaled"


@pytest.mark.parametrize("method", ["tsv-m", "regmean", "linear"])
def test_a_merge_that_is_stored_as_weights_has_those_of_its_recipe(run, run_store, method):
    recipe = run(method=method, measure=False).chosen
    written = run(method=method, measure=False, run_name="written", materialize=True).chosen
    assert (recipe.is_recipe, written.is_recipe, written.recipe) == (True, False, recipe.recipe)
    expected = load_weights(run_store, recipe)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_weights(run_store, written).items())


def test_rows_name_the_method_and_its_parameters(run):
    done = run(method="ties", params=["density=0.2,0.5", "scale=0.5"])
    params = [row["params"] for row in done.rows if row["candidate"]]
    assert params == [{"density": d, "consensus": "mean", "scale": 0.5} for d in (0.2, 0.5)]
    assert {row["method"] for row in done.rows if row["candidate"]} == {"ties"}
    assert done.chosen is None


def test_answers_of_a_candidate_are_those_of_its_weights(run, run_store, tmp_path):
    done = run(method="tsv-m", params=["scale=0.3,0.9"])
    one = next(each for each in done.candidates if each.number == 2)
    own = run_store.find("finetuned")
    written = save_like(run_store, own, load_weights(run_store, one.checkpoint), "written")
    task, _ = tasks_of([own], [], 8)
    (answers,) = predict_many([one.checkpoint, written], [task], run_store, tmp_path)
    assert np.array_equal(*answers.confidence)


def test_layers_scale_what_is_added_to_the_start(run, run_store, ends):
    done = run(
        method="task-arithmetic", params=["alpha=0.5"], layers=["visual.trunk.blocks=0", "visual.head=1"], measure=False
    )
    start, merged = load_weights(run_store, run_store.find("zeroshot")), load_weights(run_store, done.chosen)
    plain = load_weights(run_store, run(method="task-arithmetic", params=["alpha=0.5"], measure=False).chosen)
    for name, tensor in merged.items():
        expected = start if name.startswith("visual.trunk.blocks") else plain
        assert torch.equal(tensor, expected[name]), name
    assert done.rows == []


def test_ensembles_of_outputs_are_rows_and_no_checkpoints(run, run_store, ends, tmp_path):
    before = {each.id for each in run_store.everything()}
    done = run(method="linear", params=["weights=1/1/2"], space="output")
    found = [row for row in done.rows if row["method"].startswith("output-")]
    assert [row["method"] for row in found] == ["output-logits", "output-probabilities"]
    assert {row["candidate"] for row in found} == {None}
    stored = {each.id: each.kind for each in run_store.everything() if each.id not in before}
    assert set(stored.values()) == {"merged"}
    assert not {row["checkpoint"] for row in found} & {*stored, *before}


def test_ensembles_average_logits_and_probabilities_of_their_members(run_store, ends, tmp_path, tasks):
    weights = (0.2, 0.3, 0.5)
    of_logits, of_probabilities = ensembles(ends, weights)
    (answers,) = predict_many([of_logits, ends[0], of_probabilities], tasks[:1], run_store, tmp_path, split="train")
    endpoints = Endpoints(run_store, torch.device("cpu"))
    one = Pass(mixes_of(ends, endpoints), endpoints, EvalConfig(), Silent())
    split = tasks[0].dataset.split("train", tmp_path, one.clip.pixels)
    logits = {}
    for _, found in one.logits(split, tasks[:1], "", 8, 0):
        for batch, _, index, each in found:
            logits.setdefault(index, {})[batch.first] = each
    each = [torch.cat([logits[index][first] for first in sorted(logits[index])]).detach() for index in range(3)]
    average = sum(weight * part for weight, part in zip(weights, each, strict=True))
    mean = sum(weight * part.softmax(1) for weight, part in zip(weights, each, strict=True))
    assert answers.predicted[0].tolist() == average.argmax(1).tolist()
    assert np.allclose(answers.confidence[0], average.softmax(1).amax(1), atol=1e-5)
    assert np.allclose(answers.confidence[2], mean.amax(1), atol=1e-5)
    assert answers.confidence[1].tolist() == predict_many_alone(ends[0], tasks, run_store, tmp_path)


def predict_many_alone(end, tasks, store, data):
    (answers,) = predict_many([end], tasks[:1], store, data, split="train")
    return answers.confidence[0].tolist()


@pytest.mark.parametrize(
    ("method", "params", "parents", "expected"),
    [
        ("linear", {"alpha": 0.25}, 2, (0.75, 0.25)),
        ("linear", {"weights": [1, 1, 2]}, 3, (0.25, 0.25, 0.5)),
        ("task-arithmetic", {"alpha": 0.25}, 3, (0.5, 0.25, 0.25)),
        ("task-arithmetic", {"alphas": [0.5, 1.0]}, 3, (-0.5, 0.5, 1.0)),
        ("ties", {"density": 0.5}, 3, (0.0, 0.5, 0.5)),
        ("regmean", {"reduction": 0.9}, 4, (0.25,) * 4),
    ],
)
def test_outputs_have_the_coefficients_that_the_merge_gives_its_parents(method, params, parents, expected):
    assert output_weights(find_merge_method(method), params, parents) == expected


def test_a_merge_of_gram_matrices_measures_each_end_on_its_own_training_images(run, run_store):
    first, again = (run(method=method, params=["images=6"], measure=False).chosen for method in ("regmean", "regmean"))
    assert first.recipe.params["gram"] == again.recipe.params["gram"]
    assert len({digest for digest, _ in first.recipe.fisher_files}) == 3
    grams = run_store.read_fishers(first)
    tensors = load_weights(run_store, first)
    assert set(grams[0]) == {
        name for name, each in tensors.items()
        if name.startswith("visual.") and (each.ndim == 2 or (each.ndim == 4 and each.shape[2:] == (1, 1)))
    }  # fmt: skip
    for name, gram in grams[0].items():
        assert gram.shape == (tensors[name].shape[1],) * 2
        assert torch.allclose(gram, gram.T, atol=1e-4)
    assert run_store.problem(first) == ""


@pytest.mark.parametrize("method", ["regmean", "regmean++"])
def test_gram_matrices_of_any_number_of_ends_are_measured_in_one_model(run, monkeypatch, method):
    built, original = [], gram_matrices.load_clip
    monkeypatch.setattr(gram_matrices, "load_clip", lambda *given: built.append(1) or original(*given))
    run(method=method, params=["images=3"], measure=False)
    assert len(built) == 1


def test_sums_of_one_pass_over_the_images_take_no_more_memory_than_the_model():
    matrices = {name: torch.zeros(1, size) for name, size in (("a", 2), ("b", 3), ("c", 4), ("d", 2), ("e", 2))}
    total = 4 * (4 + 9 + 16 + 4 + 4)
    assert [list(each) for each in gram_matrices.passes(matrices, total)] == [["a", "b", "c", "d", "e"]]
    assert [list(each) for each in gram_matrices.passes(matrices, total - 1)] == [["a", "b", "c"], ["d", "e"]]
    assert [list(each) for each in gram_matrices.passes(matrices, 1)] == [["a"], ["b"], ["c"], ["d"], ["e"]]
    assert gram_matrices.passes({}, 1) == []


def test_gram_matrices_are_the_same_to_the_bit_in_any_number_of_passes(run, run_store, monkeypatch):
    one = run(method="regmean", params=["images=6"], measure=False).chosen
    for digest, _ in one.recipe.fisher_files:
        shutil.rmtree(run_store.root / "cache" / "grams" / digest)
    counted, original = [], gram_matrices.passes
    monkeypatch.setattr(
        gram_matrices, "passes", lambda matrices, memory: counted.extend(found := original(matrices, 1)) or found
    )
    many = run(method="regmean", params=["images=6"], measure=False).chosen
    assert many.recipe.params["gram"] == one.recipe.params["gram"]
    assert [len(each) for each in counted] == [1] * len(counted)
    assert len(counted) > 3


@pytest.mark.parametrize(
    ("method", "params", "times"),
    [
        ("regmean", ["reduction=0:1:0.25", "images=2"], 1), ("regmean", ["images=2,3"], 2),
        ("regmean++", ["reduction=0.5,1", "images=2"], 2), ("fisher", ["weights=1/1/1,1/2/3,1/0/1"], 1),
    ],
)  # fmt: skip
def test_what_ends_are_weighed_by_is_measured_once_for_all_candidates(run, monkeypatch, method, params, times):
    asked, original = [], merge_parents._information
    monkeypatch.setattr(merge_parents, "_information", lambda *given: asked.append(given) or original(*given))
    done = run(method=method, params=params)
    assert len(asked) == times
    assert all({"gram", "fisher"} & set(each.params) for each in done.candidates if each.kind == "merged")


def test_block_by_block_the_inputs_are_those_of_the_merged_blocks_before(run, run_store):
    plain, other = (
        run(method=method, params=["images=6"], measure=False).chosen for method in ("regmean", "regmean++")
    )
    one, two = run_store.read_fishers(plain)[0], run_store.read_fishers(other)[0]
    assert set(one) == set(two)
    last = "visual.head.proj.weight"
    assert not torch.allclose(one[last], two[last])
    merged, weights = load_weights(run_store, other), load_weights(run_store, plain)
    assert not torch.equal(merged[last], weights[last])


def test_fisher_information_of_each_end_is_measured_on_its_own_task(run, run_store):
    done = run(method="fisher", params=["weights=1/1/1"], measure=False)
    assert len(done.chosen.recipe.fisher_files) == 3
    assert all(tensor.isfinite().all() for tensor in load_weights(run_store, done.chosen).values())


def test_a_greedy_soup_keeps_what_makes_validation_data_better(run_store, ends, tmp_path):
    broken = save_end(run_store, ends[0], "broken", -1.0)
    done = greedy_soup(run_store, tmp_path, [broken, *ends], limit=8, tasks=[])
    assert done.chosen.kind == "merged"
    assert done.chosen.name == "demo/shapes/greedy-soup"
    weights = dict(zip(done.chosen.recipe.parents, done.chosen.recipe.params["weights"], strict=True))
    assert weights[broken.id] == 0
    assert {*weights.values()} <= {0.0, 1.0}
    scores = {row["checkpoint"]: row["value"] for row in done.rows if row["split"] == "val"}
    best = max(scores[end.id] for end in (broken, *ends))
    first = next(end for end in (broken, *ends) if scores[end.id] == best)
    assert weights[first.id] == 1
    assert {row["method"] for row in done.rows if row["checkpoint"] == done.chosen.id} == {"greedy-soup"}
    assert {row["split"] for row in done.rows} == {"val", "test"}


def test_a_greedy_soup_without_validation_data_is_refused(run_store, ends, tmp_path):
    task = find_task(ends[0].config["task"])
    without = replace(task, dataset=replace(task.dataset, splits=("test",)))
    bare = [save_end(run_store, end, f"bare {end.name}", 1.0 + number, config={}) for number, end in enumerate(ends)]
    with pytest.raises(DataError, match=r"a greedy soup is chosen on validation data, and none of .* has any"):
        greedy_soup(run_store, tmp_path, bare, tasks=[without])


def refused(run, kind, **options):
    with pytest.raises(kind) as caught:
        run(**options)
    return caught.value


def test_ends_of_different_starts_are_named_with_what_is_meaningful_then(run, run_store, ends):
    start = run_store.find("zeroshot")
    weights = {
        key: tensor + (key == "visual.head.proj.weight") for key, tensor in load_weights(run_store, start).items()
    }
    other = run_store.save(weights, kind="zeroshot", name="other", model=start.model, training="zeroshot")
    stray = save_end(run_store, ends[0], "stray", 1.1, trained_from=[other.id])
    error = refused(run, StoreError, checkpoints=[ends[0], stray], method="ties")
    assert error.message == (
        "the ends have different starts, and task vectors of these do not add up: "
        f"{ends[0].name} from {start.name} ({start.id}), stray from other ({other.id})"
    )
    assert error.hint == "average them with linear, slerp, fisher or regmean, or name one start for all with --from"
    assert run(checkpoints=[ends[0], stray], measure=False).chosen.method == "linear"
    assert run(checkpoints=[ends[0], stray], method="ties", start=start, measure=False).chosen.parents[0] == start.id


def test_an_end_that_does_not_say_its_start_is_named(run, run_store, ends):
    orphan = save_end(run_store, ends[0], "orphan", 1.1, trained_from=[])
    error = refused(run, StoreError, checkpoints=[orphan, ends[1]], method="dare")
    assert error.message.startswith(f"orphan ({orphan.id}) does not say what it was trained from, and dare adds")
    assert "--from" in error.hint


def test_different_architectures_are_named(run, run_store, ends):
    weights = load_weights(run_store, ends[0])
    wider = save_like(run_store, ends[0], weights | {"visual.head.proj.weight": torch.zeros(128, 200)}, "wider")
    assert (
        "the checkpoints are of different architectures: 1 shapes differ"
        in refused(run, StoreError, checkpoints=[ends[0], wider]).message
    )
    renamed = save_like(run_store, ends[0], weights, "renamed", model=ends[0].model | {"model": "ViT-B-32"})
    error = refused(run, StoreError, checkpoints=[ends[0], renamed])
    assert error.message.endswith("are of different architectures: demo and ViT-B-32")


def save_like(store, end, weights, name, **other):
    fields = {"kind": "finetuned", "model": end.model, "training": end.training, "trained_from": end.trained_from}
    return store.save(weights, name=name, **{**fields, **other})


@pytest.mark.parametrize(
    ("method", "count", "message"),
    [
        ("linear", 1, "linear merges 2 or more, and 1 checkpoint is named"),
        ("model-stock", 1, "model-stock merges 2 or more, and 1 checkpoint is named"),
        ("slerp", 3, "slerp merges 2, and 3 checkpoints are named"),
        ("regmean", 1, "regmean merges 2 or more, and 1 checkpoint is named"),
    ],
)
def test_too_few_or_too_many_are_refused(run, ends, method, count, message):
    assert refused(run, UsageError, checkpoints=ends[:count], method=method).message == message


def test_an_end_that_is_named_twice_and_a_soup_of_one_are_refused(run, run_store, ends, tmp_path):
    error = refused(run, UsageError, checkpoints=[*ends, ends[0]], method="ties")
    assert error.message == f"{ends[0].name} ({ends[0].id}) is named twice"
    with pytest.raises(UsageError, match="greedy-soup merges 2 or more, and 1 checkpoint is named"):
        greedy_soup(run_store, tmp_path, ends[:1], tasks=[])


def test_the_start_of_an_average_is_that_of_its_ends(run, run_store, ends):
    soup = run(params=["weights=1/1/1"], measure=False, run_name="soup").chosen
    mix = run_store.save(
        None, kind="interpolated", name="mix", model=ends[0].model, head=ends[0].head, training=ends[0].training,
        recipe=Recipe("linear", (ends[0].trained_from[0], ends[0].id), {"alpha": 0.5}),
    )  # fmt: skip
    for end in (soup, mix):
        assert (
            run(checkpoints=[end], method="task-arithmetic", measure=False).chosen.parents[0] == ends[0].trained_from[0]
        )
    assert run(checkpoints=[soup, ends[1]], method="ties", measure=False).chosen.parents[0] == ends[0].trained_from[0]


def test_recipes_are_not_merged_to_compare_names(run, ends, weights_read, monkeypatch):
    soups = [run(params=[f"weights={word}"], measure=False).chosen for word in ("1/1/1", "1/2/1")]
    weights_read.clear()
    monkeypatch.setattr("wisepatch.store.recipes.merge_weights", None)
    assert run(checkpoints=[*soups, ends[0]], measure=False).chosen
    assert weights_read == []


def test_one_end_is_enough_where_task_vectors_are_scaled(run, ends):
    for method in ("task-arithmetic", "ties", "lines", "tsv-m"):
        assert run(checkpoints=ends[:1], method=method, measure=False).chosen.parents[1:] == (ends[0].id,)


def test_a_start_among_the_ends_is_refused(run, run_store, ends):
    error = refused(run, UsageError, checkpoints=[run_store.find("zeroshot"), *ends], method="ties")
    assert "is no end, but a start, and ties adds ends to one" in error.message


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"method": "tise"}, UnknownNameError, "unknown merge method 'tise'; did you mean ties or fisher?"),
        ({"method": "ties", "params": ["dens=1"]}, UnknownNameError, "unknown parameter of ties 'dens'; did you mean density?"),
        ({"method": "ties", "params": ["density=2"]}, UsageError, "ties cannot have density 2.0, which is not from 0 to 1"),
        ({"layers": ["0:1"]}, UsageError, "linear adds nothing to a start, and --layers scales what is added"),
        ({"space": "both"}, UsageError, "there is no space 'both'"),
        ({"measure": False, "rule": "best-mean"}, UsageError, "a choice cannot go without measurements"),
        (
            {"method": "ties", "measure": False, "params": ["scale=0:1:0.5"]}, UsageError,
            "3 candidates cannot go without measurements",
        ),
        (
            {"method": "ties", "rule": "alpha=0.5", "tasks": ["Colors"]}, UsageError,
            "alpha=0.5 goes through alphas in their order, and candidates of several ends have none",
        ),
        (
            {"method": "ties", "rule": "max-drop=0.01@95", "tasks": ["Colors"]}, UsageError,
            "max-drop=0.01@95 goes through alphas in their order, and candidates of several ends have none",
        ),
        (
            {"method": "ties", "rule": "max-drop=0.01"}, UsageError,
            "max-drop needs supported tasks to measure the drop from zero-shot",
        ),
    ],
)  # fmt: skip
def test_what_is_misspelt_or_out_of_range_is_said_before_any_work(run, weights_read, options, kind, message):
    assert refused(run, kind, **options).message == message
    assert not weights_read


def test_heads_of_other_classes_are_refused(run, run_store, ends):
    trained = [
        save_like(
            run_store, ends[0], load_weights(run_store, ends[0]) | {
                "classifier.weight": torch.randn(2, 128), "classifier.bias": torch.zeros(2)
            }, f"head {classes[0]}", head={"task": classes[0], "classes": classes}, training="wise-ft",
        )
        for classes in (["a", "b"], ["c", "d"])
    ]  # fmt: skip
    error = refused(run, WisepatchError, checkpoints=trained)
    assert error.message.endswith("are of other classes: a and c")
    assert "--head frozen" in error.hint


def test_an_end_of_another_store_is_refused(run, ends, tmp_path):
    other = Store(tmp_path / "other")
    stray = other.save({"visual.w": torch.ones(1)}, kind="finetuned", name="stray", model=ends[0].model)
    assert "lies in another store" in refused(run, StoreError, checkpoints=[ends[0], stray]).message
