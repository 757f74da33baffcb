"""The public API: lazy, sorted, typed, documented."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import wisepatch as wp
from wisepatch.datasets import demo

ROOT = Path(wp.__file__).parent


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 100, "val": 60, "test": 60})


def test_all_is_sorted_and_every_name_is_there():
    assert wp.__all__ == sorted(wp.__all__)
    assert dir(wp) == wp.__all__
    for name in wp.__all__:
        assert getattr(wp, name) is not None


def test_names_for_type_checkers_are_the_names_that_are_there():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    typed = {alias.asname or alias.name for n in block.body for alias in n.names}
    assert typed | {"__version__"} == set(wp.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'patsch'"):
        _ = wp.patsch


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Encoder", "Clip"),
        ("FinetuneConfig", "TrainConfig"),
        ("load_encoder", "load_clip"),
    ],
)
def test_names_of_the_last_release_are_aliases_that_warn(old, new):
    with pytest.warns(DeprecationWarning, match=f"wisepatch.{old} is now called wisepatch.{new}") as caught:
        assert getattr(wp, old) is getattr(wp, new)
    assert caught[0].filename == __file__
    assert old not in wp.__all__


def test_what_plugins_are_made_of_is_public():
    from wisepatch import hookspecs

    for name in ("Dataset", "Split", "Annotations", "Subset", "FileSamples", "open_folders", "DataError", "hookimpl"):
        assert name in wp.__all__
    for name in ("Metric", "Measured", "MergeMethod", "Objective", "Parameter", "SelectionRule"):
        assert getattr(wp, name) is getattr(hookspecs, name)


def test_import_is_light():
    code = "import sys, wisepatch; print([m for m in ('torch', 'pandas', 'typer', 'numpy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert out.stdout.strip() == "[]"


def test_everything_public_has_a_docstring():
    for name in wp.__all__:
        thing = getattr(wp, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), name


def test_package_says_that_it_is_typed():
    assert (ROOT / "py.typed").exists()


def test_paths_may_be_texts_and_one_thing_stands_for_a_list_of_one(run_store, shapes, tmp_path, monkeypatch):
    store, data = run_store, str(tmp_path)
    rows = wp.evaluate("finetuned", "Colors@val", store, data, metrics="top1")
    assert [(row["task"], row["metric"]) for row in rows] == [("Colors", "top1")]
    swept = wp.sweep(store, data, tasks="Colors", alphas="0,0.5", rule="best-mean", metrics="top1")
    assert swept.choice is not None
    assert sorted(swept.checkpoints) == [0, 0.5]
    assert list(wp.sweep(store, data, tasks="Colors@val", alphas=0.5).checkpoints) == [0.5]
    _, rows = wp.zeroshot(wp.ModelConfig("demo", ""), "Colors@val", store, data)
    assert len(rows) == 1
    config = wp.TrainConfig.with_defaults(str(shapes), supported="Colors", templates="a {}.", steps=1, batch_size=4)
    assert (config.supported, config.templates) == (("Colors",), ("a {}.",))
    assert [task.name for task in wp.find_tasks("Colors")] == ["Colors"]
    figure = wp.draw_over_alpha(wp.alpha_table(wp.load_results(store).query("run == @swept.run")))
    wp.save_figure(figure, str(tmp_path / "new" / "a.png"))
    assert (tmp_path / "new" / "a.png").exists()
    assert wp.export(store, "zeroshot", str(tmp_path / "exported")).folder.is_dir()
    first, second = (str(store.find(kind).home / "model.safetensors") for kind in ("zeroshot", "finetuned"))
    assert wp.load_weights(store, "zeroshot").keys() == wp.load_weights(store, store.find("finetuned")).keys()
    assert len(wp.merge_files(first, second, 0.5, str(tmp_path / "merged.safetensors"))) == 64


def test_what_is_misspelt_is_said_before_any_work(run_store, shapes, tmp_path, monkeypatch):
    monkeypatch.setattr("wisepatch.training.finetuning.load_start", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr("wisepatch.workflows.run.evaluate", lambda *_, **__: pytest.fail("measured"))
    model, settings = wp.ModelConfig("demo", ""), {"steps": 1, "batch_size": 4}
    for train in (wp.training.finetuning.finetune, wp.patch):
        with pytest.raises(wp.WisepatchError, match="unknown task 'Colours'"):
            train(
                wp.TrainConfig.with_defaults(str(shapes), supported="Colours", **settings), model, run_store, tmp_path
            )
    config = wp.TrainConfig.with_defaults(str(shapes), **settings)
    for more, problem in (
        ({"alphas": "0:1"}, "alphas"),
        ({"metrics": "top"}, "unknown metric"),
        ({"rule": "best"}, "rule"),
    ):
        with pytest.raises(wp.WisepatchError, match=problem):
            wp.patch(config, model, run_store, tmp_path, **more)
        with pytest.raises(wp.WisepatchError, match=problem):
            wp.sweep(run_store, tmp_path, **more)


def test_results_of_stores_and_files_are_one_table(run_store, tmp_path, monkeypatch):
    wp.evaluate("zeroshot", "Colors@val", run_store, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert len(wp.load_results()) == len(wp.load_results(run_store)) == len(wp.load_results(str(run_store.root))) == 1
    with run_store.results.open("a") as file:
        file.write("{torn\n")
    with pytest.warns(UserWarning, match="line 2 is not a result"):
        assert len(wp.load_results(run_store, str(run_store.results))) == 2
    with pytest.raises(wp.WisepatchError, match="there are no results at"):
        wp.load_results("nowhere")


def test_reprs_are_short(run_store, tmp_path):
    finetuned, task = run_store.find("finetuned"), wp.find_task("ImageNet@val")
    assert repr(finetuned) == f"Checkpoint('demo/shapes/finetuned', {finetuned.id}, finetuned)"
    assert repr(task) == "Task('ImageNet@val')"
    assert repr(task.dataset) == "Dataset('ImageNet', 1,000 classes)"
    assert repr(run_store) == f"Store('{run_store.root}')"
    assert repr(wp.find_task("Colors").dataset.split("test", tmp_path)) == "Split('Colors', 'test', 60 images)"
    assert repr(wp.load_clip(wp.ModelConfig("demo", ""))) == "Clip('demo')"
    swept = wp.sweep(run_store, tmp_path, tasks="Colors@val", alphas="0,0.5,1")
    assert repr(swept) == "Sweep('shapes', 3 alphas)"
    exported = wp.export(run_store, "zeroshot", tmp_path / "out")
    assert repr(exported) == f"Exported('{tmp_path / 'out'}', {exported.checkpoint!r})"


def test_a_rule_may_be_a_text():
    measured = {"A": (0.1, 0.6, 0.9), "B": (0.9, 0.85, 0.2)}
    frame = wp.sweep_frame(
        [
            {"alpha": alpha, "task": task, "metric": "top1", "value": value, "n": 100}
            for task, values in measured.items()
            for alpha, value in zip((0.0, 0.5, 1.0), values, strict=True)
        ],
        "A",
        ["B"],
    )
    assert wp.choose(frame, "best-mean") == wp.choose(frame, wp.parse_rule("best-mean")) == wp.Choice(0.5)
    with pytest.raises(wp.WisepatchError, match="rule"):
        wp.choose(frame, "best-meen")


def test_progress_is_a_line_a_stage_without_a_terminal_and_a_bar_with_one(capsys, monkeypatch):
    import io

    from rich.console import Console

    progress = wp.RichProgress()
    progress.start("training\x1b[2J", 2)
    progress.advance()
    progress.note("a note")
    progress.finish()
    assert capsys.readouterr().err == "training\\x1b[2J ...\na note\n"
    drawn = io.StringIO()
    monkeypatch.setattr(wp.RichProgress, "console", Console(file=drawn, force_terminal=True, width=100))
    progress.start("training", 2)
    progress.advance(2, "loss [1]")
    progress.note("half way")
    progress.finish()
    assert "loss [1]" in drawn.getvalue()
    assert "half way" in drawn.getvalue()
    assert wp.RichProgress.live == []
