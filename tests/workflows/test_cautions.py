"""What is said of a choice that may not hold."""

import pytest

from tests.samples import draw_folder
from wisepatch import ModelConfig, Point, Rule, Store, TrainConfig, patch
from wisepatch.workflows.cautions import cautions
from wisepatch.workflows.sweep import Sweep

DEMO = ModelConfig("demo", "")


def swept(values, chosen, *, n=1000, half=0.01, **more):
    """Return a sweep on one task with intervals of half a width, and one supported task that stays the same."""
    rows = [
        {"task": task, "split": "val", "metric": "top1", "alpha": alpha, "value": value, "n": n,
         "ci_low": value - half, "ci_high": value + half}
        for alpha, known in values.items() for task, value in (("A", known), ("B", 0.5))
    ]  # fmt: skip
    points = [Point(alpha, value, 0.5) for alpha, value in values.items()]
    choice = next(point for point in points if point.alpha == chosen)
    settings = {"supported": ("B",), "judges": ("B",), "rule": Rule(), "selected_on": "val"} | more
    return Sweep(
        "run", "A", rows=rows, points={"val": points}, checkpoints=dict.fromkeys(values), choice=choice, **settings
    )


RISING = {0: 0.1, 0.5: 0.9, 1: 0.5}


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        (swept(RISING, 0.5), []),
        (swept(RISING, 0.5, n=4, half=0.01), ["alpha was chosen on few images (4 images of A, 4 images of B)"]),
        (swept(RISING, 0.5, half=0.5), ["all alphas lie within noise of each other"]),
        (
            swept(RISING, 0.5, n=4, half=0.5, coefficients={0: (0, 0), 0.5: (0.5, 0), 1: (0.5, 1)}),
            ["the coefficients were chosen on few images", "all coefficients lie within noise of each other"],
        ),
        (swept(RISING, 0), ["alpha 0 was chosen: the patched model is the zero-shot one; try more steps"]),
        (
            swept(RISING, 0, start="demo/A/patched (abc)"),
            ["alpha 0 was chosen: the patched model is the one that training began with, demo/A/patched (abc)"],
        ),
        (swept(RISING, 1), ["alpha 1 was chosen, the end of the range: more steps may help further"]),
        (swept({0: 0.1, 0.5: 0.9}, 0.5), ["alpha 0.5 was chosen, the end of the range: a larger alpha may be better"]),
        (swept({0.2: 0.1, 0.5: 0.9}, 0.2), ["alpha 0.2 was chosen, the end of the range: a smaller alpha may"]),
        (swept({0.2: 0.9}, 0.2), []),
        (swept(RISING, 0.5, supported=(), judges=()), ["without --supported nothing tells what the patch costs"]),
    ],
)
def test_a_choice_that_may_not_hold_says_why(sweep, said):
    found = cautions(sweep)
    assert len(found) == len(said), found
    for sentence, begin in zip(found, said, strict=True):
        assert sentence.startswith(begin)


def test_a_sweep_that_chose_nothing_has_no_cautions(run_store, tmp_path):
    assert cautions(Sweep("run", "A", (), [], {}, {})) == []


def test_the_summary_of_a_patch_says_what_its_mean_is_of_and_what_to_mind(cli, shapes, tmp_path):
    first, second = draw_folder(tmp_path / "first"), draw_folder(tmp_path / "second")
    words = ("--steps", "1", "--batch-size", "4", "--lr", "1e-9", "--alpha", "0,1")
    result = cli("patch", "--model", "demo", "--task", shapes, "--supported", f"{first},{second}", *words)
    assert ", the mean of first, second from " in result.stdout
    assert "note: alpha was chosen on few images (" in result.stdout
    assert "note: alpha 0 was chosen: the patched model is the zero-shot one" in result.stdout
    assert "note: all alphas lie within noise" in result.stdout
    assert "without --supported" not in result.stdout
    assert " split (chosen on this split), n = " in result.stdout
    alone = cli("interpolate", "--eval", first, "--select", "best-mean", "--alpha", "0,1")
    assert "note: alpha 0 was chosen" in alone.stderr


def test_the_start_of_a_second_patch_is_called_what_it_is_and_max_drop_counts_from_zero_shot(
    cli, shapes, tmp_path, monkeypatch
):
    few = ("--steps", "2", "--batch-size", "4", "--alpha", "0,1", "--warmup", "0")
    assert cli("patch", "--model", "demo", "--task", shapes, "--lr", "1e-2", "--alpha", "1", *few[:4]).exit_code == 0
    monkeypatch.setattr("wisepatch.cli.results.MIN_COLUMNS_OF_A_FILE", 300)
    first, second = draw_folder(tmp_path / "first"), draw_folder(tmp_path / "second")
    words = ("--from", "patched", "--supported", second, "--select", "max-drop=0.01", "--output", "a.svg")
    result = cli("patch", "--task", first, *words, *few)
    assert result.exit_code == 0, result.output
    store = Store(tmp_path / "wisepatch-store")
    assert "(the start, demo/shapes/patched (" in result.stdout
    picture = (tmp_path / "a.svg").read_text()
    assert "Mixing demo/shapes/patched and fine-tuned weights" in picture
    assert "zero-shot" not in picture
    from wisepatch.store.results import read

    rows = read(store.results)[0]
    rows = rows[rows["run"] == rows["run"].iloc[-1]]
    root = store.find("zeroshot").id
    assert set(rows["task"][rows["checkpoint"] == root]) == {"first", "second"}
    assert rows["alpha"][rows["checkpoint"] == root].isna().all()


def test_a_patch_from_python_knows_its_start(shapes, tmp_path):
    config = TrainConfig.with_defaults(str(shapes), steps=1, batch_size=4)
    sweep = patch(config, DEMO, Store(tmp_path / "store"), tmp_path, alphas=(0, 1)).sweep
    assert sweep.start == "zeroshot"
    assert sweep.start_words == "zero-shot"
    assert {row["start"] for row in sweep.rows} == {"zeroshot"}
