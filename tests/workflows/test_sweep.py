"""Sweeps: mixes of a run measured in one pass, and alpha chosen by a rule."""

import json
import math
import shutil

import pytest
import torch

from tests.samples import Notes, draw_folder, fails
from wisepatch import EvalConfig, ModelConfig, Rule, Store, TrainConfig, choose, load_weights, sweep, sweep_frame
from wisepatch.errors import StoreError, UsageError, WisepatchError
from wisepatch.store.results import read
from wisepatch.workflows.tasks_of_run import tasks_of_run

DEMO = ModelConfig("demo", "")


def on_val(swept):
    return sweep_frame([row for row in swept.rows if row["split"] == "val"], swept.patching, swept.judges)


def test_alpha_is_chosen_on_validation_and_reported_on_test(run_store, tmp_path):
    swept = sweep(run_store, tmp_path, alphas=(0, 0.5, 1), tasks=["Colors"], rule=Rule())
    assert list(swept.points) == ["val", "test"]
    assert swept.choice.alpha == choose(on_val(swept), Rule()).alpha
    chosen = [row for row in swept.rows if row.get("chosen")]
    assert {row["split"] for row in chosen} == {"val", "test"}
    assert {row["selected_on"] for row in chosen} == {"val"}
    assert {row["alpha"] for row in chosen} == {swept.choice.alpha}
    assert {row["role"] for row in swept.rows if row["task"] == "shapes"} == {"patching"}
    kept = run_store.find("patched")
    assert (kept.name, kept.alpha, kept.is_recipe) == ("demo/shapes/patched", swept.choice.alpha, True)
    assert kept.config["select"] == "best-mean"
    assert kept.config["select_on"] == "val"


def test_what_tasks_show_is_told_from_their_files_and_groups_count_as_one(run_store, tmp_path):
    """A copy of a folder shows its images, and of frames of one video each tells little more than another."""
    for split in ("train", "val", "test"):
        draw_folder(tmp_path / "frames" / split, per_class=4)
    shutil.copytree(tmp_path / "frames", tmp_path / "copied")
    swept = sweep(
        run_store, tmp_path, alphas=(0, 1), rule="max-drop=0.9@95",
        tasks=[f"{tmp_path}/frames?group=[0-9]", str(tmp_path / "copied"), "Colors"],
    )  # fmt: skip
    rows = {(row["task"], row["split"]): row for row in swept.rows if row["alpha"] == 1 and row["metric"] == "top1"}
    assert rows["copied", "val"]["images"] == rows["frames", "val"].get("images", "frames")
    assert "images" not in rows["Colors", "val"]
    assert (rows["frames", "val"]["n"], rows["frames", "val"]["n_effective"]) == (12, 4)
    assert "n_effective" not in rows["copied", "val"]
    assert "images of one group count as one (12 of frames as 4)" in swept.note


def test_choice_on_test_data_is_written_into_the_checkpoint(run_store, tmp_path):
    swept = sweep(run_store, tmp_path, alphas=(0, 1), tasks=["Colors"], rule=Rule(), select_on="test")
    assert list(swept.points) == ["test"]
    assert swept.chosen.config["select_on"] == "test"


def test_without_a_rule_nothing_is_chosen(run_store, tmp_path):
    swept = sweep(run_store, tmp_path, alphas=(0, 1))
    assert (swept.choice, swept.chosen, swept.supported) == (None, None, ("Colors",))
    assert list(swept.points) == ["test"]


def test_recipes_are_small_and_ends_are_the_parents(run_store, tmp_path):
    swept = sweep(run_store, tmp_path, alphas=(0, 0.1, 1), tasks=())
    assert [c.kind for c in swept.checkpoints.values()] == ["zeroshot", "interpolated", "finetuned"]
    folder = run_store.checkpoints / swept.checkpoints[0.1].id
    assert [p.name for p in folder.iterdir()] == ["manifest.json"]
    assert (folder / "manifest.json").stat().st_size < 2500
    assert json.loads((folder / "manifest.json").read_text())["recipe"]["params"] == {"alpha": 0.1}


def test_select_on_is_val_or_test(run_store, tmp_path):
    with pytest.raises(UsageError, match="selected on val or test, not 'train'"):
        sweep(run_store, tmp_path, select_on="train")


def test_task_named_with_a_split_is_still_trained_and_tested_on_its_own(run_store, shapes):
    end = run_store.find("finetuned")
    patching, others = tasks_of_run(end, ["Colors@val", end.config["task"]])
    assert (patching.name, patching.split) == ("shapes", None)
    assert [(t.name, t.split) for t in others] == [("Colors", "val")]


def test_choice_on_test_data_is_labelled_in_every_row_and_in_the_picture(cli, run_store):
    result = cli(
        "interpolate", "--alpha", "0,0.5,1", "--eval", "Colors", "--select", "best-mean", "--select-on", "test"
    )
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in run_store.results.read_text().splitlines()]
    assert {row["selected_on"] for row in rows} == {"test"}
    assert sum(row["chosen"] for row in rows) == 2
    from wisepatch import draw_sweep, read_results, sweep_table

    figure = draw_sweep(sweep_table(read_results(run_store.results)[0]))
    assert any("chosen on TEST data" in text.get_text() for text in figure.legends[0].get_texts())


def test_max_drop_needs_supported_tasks(run_store, tmp_path):
    with pytest.raises(UsageError, match="max-drop needs supported tasks"):
        sweep(run_store, tmp_path, tasks=(), rule=Rule("max-drop", 0.01))


def test_task_that_names_a_split_cannot_take_part_in_a_choice(run_store, tmp_path):
    with pytest.raises(UsageError, match="Colors@test names a split, and alpha is to be chosen on val"):
        sweep(run_store, tmp_path, tasks=["Colors@test"], rule=Rule())
    assert sweep(run_store, tmp_path, alphas=(0,), tasks=["Colors@val"]).rows[1]["split"] == "val"


def test_eval_keeps_class_names_and_prompts_of_the_run(cli, shapes, tmp_path):
    (tmp_path / "names.txt").write_text("star\nheart\nring\n")  # not what the folders say
    common = ("--task", shapes, "--json")
    cli(
        "finetune", "--model", "demo", "--task", shapes, "--classnames", "names.txt", "--steps", "1", "--batch-size", "4"
    )  # fmt: skip
    as_trained = json.loads(cli("eval", "zeroshot", "finetuned", *common).stdout.splitlines()[0])["value"]
    by_folder = json.loads(cli("eval", "zeroshot", *common).stdout.splitlines()[0])["value"]
    assert by_folder > as_trained


def test_line_from_a_checkpoint_with_a_trained_head(shapes, tmp_path):
    store = Store(tmp_path / "store")
    from wisepatch import finetune

    settings = {"steps": 1, "batch_size": 8, "warmup": 0}
    first = finetune(TrainConfig.with_defaults(str(shapes), head="trained", **settings), DEMO, store, tmp_path)
    again = finetune(TrainConfig.with_defaults(str(shapes), start="finetuned", **settings), DEMO, store, tmp_path)
    assert (again.zeroshot.kind, again.zeroshot.name, again.zeroshot.head) == ("start", "demo/shapes/start", None)
    assert again.zeroshot.parents == (first.finetuned.id,)
    rows = sweep(store, tmp_path, alphas=(0, 0.5, 1), tasks=["Colors"]).rows
    assert [row["alpha"] for row in rows if row["task"] == "Colors"] == [0, 0.5, 1, None]  # and the zero-shot model
    assert {row["start"] for row in rows} == {f"{first.finetuned.name} ({first.finetuned.id})"}
    assert store.find("zeroshot").id == first.zeroshot.id


@pytest.fixture
def untold(tmp_path):
    """A task with test images and no others, as the shifts of ImageNet are."""
    return draw_folder(tmp_path / "untold" / "test", classes=("circle", "star")).parent


def rows_by(swept, *names):
    return {tuple(row[name] for name in names) for row in swept.rows}


def test_a_task_without_validation_data_is_measured_and_does_not_choose(run_store, tmp_path, untold):
    notes = Notes()
    tasks = ["Colors", str(untold)]
    swept = sweep(run_store, tmp_path, alphas=(0, 1), tasks=tasks, rule=Rule("max-drop", 0.01), progress=notes)
    assert rows_by(swept, "task", "split") == {
        ("shapes", "val"), ("shapes", "test"), ("Colors", "val"), ("Colors", "test"), ("untold", "test"),
    }  # fmt: skip
    assert "without a val split, and so not used to choose alpha: untold" in notes.notes
    alone = sweep(run_store, tmp_path, alphas=(0, 1), tasks=["Colors"], rule=Rule("max-drop", 0.01))
    assert (swept.choice, swept.points["val"]) == (alone.choice, alone.points["val"])
    assert swept.points["test"] != alone.points["test"]
    assert swept.supported == ("Colors", "untold")


def test_without_any_validation_data_of_supported_tasks_the_patching_task_chooses(run_store, tmp_path, untold):
    swept = sweep(run_store, tmp_path, alphas=(0, 1), tasks=[str(untold)], rule=Rule())
    assert [point.supported for point in swept.points["val"]] == [None, None]
    assert all(point.supported is not None for point in swept.points["test"])
    on_test = sweep(
        run_store, tmp_path, alphas=(0, 1), tasks=[str(untold)], rule=Rule("max-drop", 0.5), select_on="test"
    )
    assert on_test.choice is not None


def test_max_drop_needs_a_supported_task_that_can_be_judged(cli, run_store, untold, monkeypatch):
    monkeypatch.setattr("wisepatch.workflows.run.evaluate", lambda *_, **__: pytest.fail("measured"))
    result = cli("interpolate", "--eval", untold, "--select", "max-drop=0.01")
    fails(result, 2, "max-drop needs a supported task with a val split, and there is none: untold", "best-mean")


def chosen_by(cli, *words):
    result = cli("interpolate", *words, "--json")
    assert result.exit_code == 0, result.output
    *rows, choice = map(json.loads, result.stdout.splitlines())
    return {
        row["alpha"]: row["value"] for row in rows if row["split"] == "val" and row["task"] == row["patching"]
    }, choice


def test_a_metric_that_is_better_when_lower_chooses_the_lowest(cli, shapes):
    training = ("--steps", "40", "--batch-size", "8", "--lr", "3e-3", "--warmup", "0")
    assert cli("finetune", "--model", "demo", "--task", f"typo:{shapes}", *training).exit_code == 0
    words = ("--alpha", "0,1", "--eval", "", "--metric", "attack_success", "--select", "best-mean")
    values, choice = chosen_by(cli, *words)
    assert len(set(values.values())) == 2
    assert values[choice["alpha"]] == min(values.values())
    text = cli("interpolate", *words).stdout
    assert "attack_success (lower is better) in per cent, val split (chosen on this split)" in text


@pytest.mark.parametrize("rule", ["best-mean", "max-drop=0.5"])
def test_an_alpha_without_a_value_is_never_chosen(cli, run_store, monkeypatch, rule):
    without_values(monkeypatch, 1.0)
    values, choice = chosen_by(cli, "--alpha", "0,0.5,1", "--eval", "Colors", "--select", rule)
    assert values[1.0] is None
    assert choice["alpha"] in (0, 0.5)


@pytest.mark.parametrize("rule", ["best-mean", "max-drop=0.5"])
def test_where_no_alpha_has_a_value_nothing_can_be_chosen(cli, run_store, monkeypatch, rule):
    without_values(monkeypatch, 0.0, 0.5, 1.0)
    result = cli("interpolate", "--alpha", "0,0.5,1", "--eval", "Colors", "--select", rule)
    fails(result, 1, "the metric has no value at alpha 0, 0.5, 1", "--metric")
    assert len(read(run_store.results)[0]) == 6  # what was measured is kept


def test_choice_on_test_data_needs_a_rule(cli, run_store, monkeypatch):
    monkeypatch.setattr("wisepatch.workflows.run.evaluate", lambda *_, **__: pytest.fail("measured"))
    fails(cli("interpolate", "--select-on", "test"), 2, "without --select", "--select best-mean")


def without_values(monkeypatch, *alphas):
    """Let the metric have no value (NaN) at some alphas."""
    import wisepatch.workflows.run as module

    original = module.evaluate

    def evaluate(*given, **settings):
        return [row | ({"value": math.nan} if row["alpha"] in alphas else {}) for row in original(*given, **settings)]

    monkeypatch.setattr(module, "evaluate", evaluate)


def test_the_precision_of_a_sweep_changes_nothing_that_is_stored_as_weights(run_store, tmp_path):
    """bf16 is what the image tower computes in: mixes are made, and kept, in the type of their ends."""
    stored = []
    for number, precision in enumerate(("no", "bf16")):
        store = Store(shutil.copytree(run_store.root, tmp_path / str(number)))
        sweep(
            store,
            tmp_path,
            tasks=[],
            alphas=(0, 0.5, 1),
            materialize=True,
            settings=EvalConfig(mixed_precision=precision),
        )
        stored.append({each.id: each.files for each in store.everything()})
    assert stored[0] == stored[1]
    assert len(stored[0]) == 3


def test_room_for_all_mixes_is_looked_for_before_the_first_is_written(run_store, tmp_path, monkeypatch):
    before = run_store.everything()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 10**6))
    with pytest.raises(StoreError, match=r"needs \d+ MB, and its disk has 1 MB free"):
        sweep(run_store, tmp_path, tasks=["Colors"], alphas=[i / 20 for i in range(21)], materialize=True)
    assert run_store.everything() == before


def test_layers_scale_the_way_of_each_block_and_alpha_1_is_a_mix_too(run_store, finished):
    done = sweep(
        run_store, finished[0], checkpoint="finetuned", tasks=[], alphas="0,0.5,1", layers="lines", rule="alpha=1"
    )
    start, end = (load_weights(run_store, run_store.find(name)) for name in ("zeroshot", "finetuned"))
    mixed = load_weights(run_store, done.checkpoints[0.5])
    for part, scale in (("visual.trunk.blocks.0.0.conv.weight", 0.5), ("visual.trunk.blocks.4.0.conv_pwl.weight", 1.0)):
        assert torch.allclose(mixed[part], start[part] + 0.5 * scale * (end[part] - start[part]), atol=1e-6)
    whole = load_weights(run_store, done.checkpoints[1.0])
    assert not torch.equal(whole["visual.trunk.blocks.0.0.conv.weight"], end["visual.trunk.blocks.0.0.conv.weight"])
    assert done.checkpoints[0.0].kind == "zeroshot"
    patched = load_weights(run_store, done.chosen)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in patched.items())
    assert done.rows[-1]["params"]["layers"]["visual.trunk.blocks.4.0"] == 1.0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"method": "fisher"}, "--layers scales the blocks of linear mixes"),
        ({"alphas": "auto", "rule": "best-mean"}, "--layers scales the blocks of linear mixes"),
        ({"layers": "wide"}, "--layers 'wide' is not understood"),
        ({"layers": "visual.nothing=0.5"}, "unknown layer 'visual.nothing'"),
    ],
)
def test_layers_that_cannot_be_scaled_are_refused_before_any_work(options, reason, run_store, finished):
    before = len(run_store.everything())
    with pytest.raises(WisepatchError, match=reason):
        sweep(run_store, finished[0], **{"layers": "lines", "tasks": [], "alphas": "0,1"} | options)
    assert len(run_store.everything()) == before
