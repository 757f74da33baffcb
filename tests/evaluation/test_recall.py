"""Answers that the store holds are not computed again, and nothing that decides about them is overlooked."""

import pytest

from tests.samples import Notes, recipes
from wisepatch import EvalConfig, evaluate, find_task
from wisepatch.evaluation import recall
from wisepatch.evaluation.prediction import predict_many
from wisepatch.store.predictions import load_predictions, save_predictions
from wisepatch.workflows.sweep import sweep

CLOCKED = ("time", "run")


@pytest.fixture
def passes(monkeypatch):
    """The checkpoints and tasks of each pass over images."""
    seen = []

    def watched(checkpoints, tasks, *args, **options):
        seen.append(([checkpoint.alpha for checkpoint in checkpoints], [task.name for task in tasks]))
        return predict_many(checkpoints, tasks, *args, **options)

    monkeypatch.setattr(recall, "predict_many", watched)
    return seen


def plain(rows):
    return [{key: value for key, value in row.items() if key not in CLOCKED} for row in rows]


def test_a_second_evaluation_reads_no_image_and_gives_the_same_rows(run_store, tasks, tmp_path, passes):
    checkpoints = [run_store.find("zeroshot"), *recipes(run_store, [0.5])]
    first = evaluate(checkpoints, tasks, run_store, tmp_path)
    del passes[:]
    progress = Notes()
    again = evaluate(checkpoints, tasks, run_store, tmp_path, progress=progress)
    assert plain(again) == plain(first)
    assert not passes
    assert (
        "shapes (test): the store holds the answers of 2 of 2 checkpoints; --again computes them anew" in progress.notes
    )
    rows = evaluate(checkpoints, tasks, run_store, tmp_path, settings=EvalConfig(again=True))
    assert plain(rows) == plain(first)
    assert passes


def test_only_what_is_missing_is_computed_and_neighbours_share_a_pass(run_store, tasks, tmp_path, passes):
    low, middle, high = recipes(run_store, [0.25, 0.5, 0.75])
    evaluate([middle], tasks[:1], run_store, tmp_path)
    del passes[:]
    mixed = evaluate([low, middle, high], tasks, run_store, tmp_path)
    assert passes == [([0.25, 0.75], ["shapes"]), ([0.25, 0.5, 0.75], ["Colors"])]
    straight = evaluate([low, middle, high], tasks, run_store, tmp_path, settings=EvalConfig(again=True))
    assert plain(mixed) == plain(straight)


def test_answers_to_some_images_are_not_those_to_all_and_are_taken_from_them(run_store, tmp_path, passes):
    some, all_of_them, more = (find_task("Colors", limit=limit) for limit in (9, None, 10_000))
    evaluate("zeroshot", some, run_store, tmp_path)
    (whole,) = evaluate("zeroshot", all_of_them, run_store, tmp_path)
    assert len(passes) == 2
    (few,) = evaluate("zeroshot", find_task("Colors", limit=20), run_store, tmp_path)
    (same,) = evaluate("zeroshot", more, run_store, tmp_path)
    assert len(passes) == 2
    assert (few["n"], few["limit"], whole["n"], whole["limit"]) == (20, 20, 40, None)
    assert same | {"limit": None} == whole | {"time": same["time"]}
    (fresh,) = evaluate("zeroshot", find_task("Colors", limit=20), run_store, tmp_path, settings=EvalConfig(again=True))
    assert plain([few]) == plain([fresh])


@pytest.mark.parametrize("change", ["precision", "template", "classnames", "images", "version"])
def test_what_decides_about_answers_is_looked_at(run_store, shapes, tmp_path, passes, change, monkeypatch):
    end, settings = run_store.find("finetuned"), EvalConfig()
    spec, options = str(shapes), {}
    evaluate([end], [find_task(spec)], run_store, tmp_path)
    if change == "precision":
        settings = EvalConfig(mixed_precision="bf16")
    elif change == "template":
        options = {"templates": ("a drawing of a {}.",)}
    elif change == "classnames":
        options = {"classnames": ("ring", "box", "star")}
    elif change == "images":
        for path in shapes.rglob("*.png"):
            path.write_bytes(path.read_bytes() + b" ")
    else:
        monkeypatch.setattr(recall, "versions", lambda *_: {"torch": "another"})
    evaluate([end], [find_task(spec, **options)], run_store, tmp_path, settings=settings)
    assert len(passes) == 2


def test_damaged_answers_are_said_and_computed_again(run_store, shapes, tmp_path, passes):
    end, task = run_store.find("finetuned"), find_task(str(shapes))
    first = evaluate([end], [task], run_store, tmp_path)
    (path,) = (run_store.predictions / end.id).glob("*.parquet")
    path.write_bytes(path.read_bytes()[:-9])
    progress = Notes()
    assert plain(evaluate([end], [task], run_store, tmp_path, progress=progress)) == plain(first)
    assert len(passes) == 2
    assert any("damaged" in note and "made again" in note for note in progress.notes)


def test_of_several_processes_the_main_one_says_what_is_recalled(run_store, tasks, tmp_path, passes, monkeypatch):
    """A process that sees answers which the main one does not see takes part in the pass all the same."""
    end = run_store.find("finetuned")
    evaluate([end], tasks[:1], run_store, tmp_path)
    monkeypatch.setattr(recall, "on_main", lambda _: [{}])
    evaluate([end], tasks[:1], run_store, tmp_path)
    assert len(passes) == 2


def test_a_sweep_that_was_stopped_goes_on_with_the_next_task(run_store, shapes, tmp_path, passes, monkeypatch):
    """The first task of an interrupted sweep is not measured again, nor are alphas that another sweep has measured."""

    class StopError(Exception):
        pass

    def stopping(checkpoints, tasks, *args, **options):
        for number, predictions in enumerate(predict_many(checkpoints, tasks, *args, **options)):
            if number == 1:
                raise StopError
            yield predictions

    with monkeypatch.context() as patched:
        patched.setattr(recall, "predict_many", stopping)
        with pytest.raises(StopError):
            sweep(run_store, tmp_path, tasks=["Colors"], alphas=[0, 0.5, 1])
    sweep(run_store, tmp_path, tasks=["Colors"], alphas=[0, 0.5, 1])
    assert [tasks for _, tasks in passes] == [["Colors"]]
    del passes[:]
    sweep(run_store, tmp_path, tasks=["Colors"], alphas=[0, 0.25, 0.5, 1])
    assert {alpha for alphas, _ in passes for alpha in alphas} == {0.25}


def test_answers_of_versions_that_kept_no_scores_are_computed_again(run_store, tasks, tmp_path, passes):
    checkpoints = [run_store.find("zeroshot"), run_store.find("finetuned")]
    first = evaluate(checkpoints, tasks[:1], run_store, tmp_path, metrics=("brier", "top5"))
    old = checkpoints[0]
    frame = load_predictions(run_store, old, "shapes", "test")
    fields = {name: value for name, value in frame.attrs.items() if name not in ("checkpoint", "task", "split")}
    save_predictions(run_store, old, "shapes", "test", frame.drop(columns=["rank", "brier"]), fields)
    del passes[:]
    assert plain(evaluate(checkpoints, tasks[:1], run_store, tmp_path, metrics=("brier", "top5"))) == plain(first)
    assert passes == [([None], ["shapes"])]
    assert "brier" in load_predictions(run_store, old, "shapes", "test")


def test_answers_of_versions_that_named_written_on_images_by_index_are_given_again(run_store, shapes, tmp_path, passes):
    written_on, start = find_task(f"typo:{shapes}"), run_store.find("zeroshot")
    evaluate(start, written_on, run_store, tmp_path)
    frame = load_predictions(run_store, start, written_on.name, "test")
    about = {name: value for name, value in frame.attrs.items() if name not in ("checkpoint", "task", "split")}
    by_index = frame.assign(image=[str(place) for place in range(len(frame))])
    save_predictions(run_store, start, written_on.name, "test", by_index, about)
    del passes[:]
    evaluate(start, written_on, run_store, tmp_path)
    assert len(passes) == 1
    assert list(load_predictions(run_store, start, written_on.name, "test")["image"]) == list(frame["image"])
