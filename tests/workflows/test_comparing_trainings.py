"""Ways to fine-tune, compared after mixing: one start, one pass, paired image by image."""

import json

import numpy as np
import pytest

from tests.samples import draw_folder
from wisepatch import ModelConfig, Store, TrainConfig, compare_trainings
from wisepatch.analysis.seeds import paired_over_seeds
from wisepatch.errors import WisepatchError
from wisepatch.evaluation import recall
from wisepatch.store.results import read

DEMO = ModelConfig("demo", "")


def ways(folder, **kinds):
    given = {"supported": ("Colors",), "steps": 2, "batch_size": 6, "lr": 1e-2, "warmup": 0, "limit": 30}
    return {name: TrainConfig.with_defaults(str(folder), **given | more) for name, more in kinds.items()}


def test_each_way_starts_from_one_model_with_the_same_seeds_and_all_is_measured_once(shapes, tmp_path, monkeypatch):
    passes, original = [], recall.predict_many
    monkeypatch.setattr(
        recall, "predict_many", lambda checkpoints, *given, **more: passes.append(len(checkpoints)) or original(
            checkpoints, *given, **more
        )
    )  # fmt: skip
    store = Store(tmp_path / "store")
    kinds = ways(shapes, plain={}, flyp={"objective": "flyp"})
    found = compare_trainings(
        kinds, DEMO, store, tmp_path, seeds=(0, 1), alphas="0,0.5,1", rule="max-drop=0.5", layers="lines"
    )
    *found, scaled = found
    assert scaled.name == "plain, layers lines"
    assert scaled.runs == found[0].runs
    assert [way.name for way in found] == ["plain", "flyp"]
    assert (
        passes == [1 + 4 * 2 + 2 * 2] * 2
    )  # validation and test: one start, two mixes of four ends each, and of two again
    assert len({run.zeroshot.id for way in found for run in way.runs}) == 1
    assert len({run.finetuned.id for way in found for run in way.runs}) == 4
    assert all([run.finetuned.config["seed"] for run in way.runs] == [0, 1] for way in found)
    for way in found:
        patching, supported = way.accuracies()
        assert patching == way.right.mean(1).tolist()  # what is paired is what is reported
        assert len(supported) == 2
        assert json.dumps(way.record())
    first, second = found
    assert first.against is None
    expected = paired_over_seeds(first.right, second.right)
    assert second.against.value == expected.value
    assert second.against.p >= expected.p
    rows = read(store.results)[0]
    assert set(rows["run_name"]) == {"plain", "flyp", scaled.name}
    assert rows["run"].nunique() == 6


@pytest.mark.parametrize(
    ("kinds", "options", "reason"),
    [
        ({"a": {}, "b": {"objective": "lp-ft"}}, {}, "b: lp-ft trains the head, and the head is to be frozen"),
        ({"a": {}, "b": {}}, {"alphas": "auto"}, "--alpha auto leaves other alphas for each training"),
        ({"a": {}, "b": {"limit": 3}}, {}, "the ways to train differ in limit"),
        ({"a": {}, "b": {"objective": "distill", "distill_on": "nowhere"}}, {}, "b: unknown task 'nowhere'"),
        (
            {"a": {}, "b": {"objective": "distill", "objective_param": ("temperature=0",)}}, {},
            "b: the setting temperature of distill must not be 0",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_any_of_them_is_said_before_the_first_step(kinds, options, reason, shapes, tmp_path):
    with pytest.raises(WisepatchError, match=reason):
        compare_trainings(ways(shapes, **kinds), DEMO, Store(tmp_path / "store"), tmp_path, **options)
    assert not (tmp_path / "store").exists()


def test_what_a_later_way_looks_at_in_training_is_opened_before_the_first_step(tmp_path):
    for split in ("train", "val", "test"):
        draw_folder(tmp_path / "own" / split)
    broken = next((tmp_path / "own" / "val").rglob("*.png"))
    broken.write_bytes(b"no image")
    kinds = ways(tmp_path / "own", first={}, watched={"eval_every": 1.0})
    with pytest.raises(WisepatchError, match=r"val.*no image"):
        compare_trainings(kinds, DEMO, Store(tmp_path / "store"), tmp_path, select_on="test")
    assert not (tmp_path / "store").exists()


def test_paired_differences_over_seeds_are_those_of_a_t_test_of_the_images():
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(0)
    before, after = rng.random((3, 60)) < 0.6, rng.random((3, 60)) < 0.8
    found = paired_over_seeds(before, after)
    expected = ttest_rel(after.mean(0), before.mean(0))
    low, high = expected.confidence_interval(0.95)
    assert (found.value, found.p) == pytest.approx((after.mean() - before.mean(), expected.pvalue))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.by_seed == pytest.approx(tuple(after.mean(1) - before.mean(1)))
    same = paired_over_seeds(before, before)
    assert (same.value, same.p, same.is_beyond_chance) == (0.0, 1.0, False)


def test_a_difference_that_changes_its_sign_from_seed_to_seed_is_no_difference():
    before = np.zeros((2, 200), bool)
    after = np.zeros((2, 200), bool)
    after[0, :150] = True
    before[1, :20] = True
    found = paired_over_seeds(before, after)
    assert found.p < 0.05
    assert not found.is_beyond_chance
    assert paired_over_seeds(before[:1], after[:1]).is_beyond_chance


def test_text_of_a_trained_text_tower_is_encoded_once_for_each_alpha(shapes, tmp_path, monkeypatch):
    """Heads follow from the mixed text tower: one for each alpha and task between the ends, whose two are different."""
    from wisepatch import find_task
    from wisepatch.evaluation import heads
    from wisepatch.models.zeroshot_head import zeroshot_head

    made = []
    monkeypatch.setattr(
        heads,
        "zeroshot_head",
        lambda clip, classes, *more: made.append(len(classes)) or zeroshot_head(clip, classes, *more),
    )
    store = Store(tmp_path / "store")
    (way,) = compare_trainings(
        ways(shapes, flyp={"objective": "flyp", "lr": 0.05}), DEMO, store, tmp_path, alphas="0,0.5,1"
    )
    assert sorted(made) == [3] * 6 + [len(find_task("Colors").dataset.classes)] * 6  # 3 alphas, validation and test
    sweep = way.sweeps[0]
    task = find_task(str(shapes))
    from wisepatch import interpolate, load_clip, load_weights
    from wisepatch.evaluation.measurement import evaluate

    start, end = (load_weights(store, each) for each in (way.runs[0].zeroshot, way.runs[0].finetuned))
    mixed = store.save(
        interpolate(start, end, 0.5), kind="imported", name="mixed", model=DEMO.to_json(), trained_from=[], training=""
    )
    assert load_clip(DEMO, load_weights(store, mixed)).has_text
    (row,) = evaluate([mixed], [task], store, tmp_path, record=False)
    assert row["value"] == sweep.at("test", 0.5).patching
