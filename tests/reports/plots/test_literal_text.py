"""Names stand in pictures as they are."""

from pathlib import Path

import pandas as pd
import pytest

from tests.reports.plots.pictures import measured, picture, texts
from wisepatch import (
    Look,
    alpha_table,
    confusion_table,
    draw_confusion,
    draw_over_alpha,
    draw_sweep,
    read_results,
    save_figure,
    sweep_table,
)
from wisepatch.errors import UsageError

DATA = Path(__file__).parents[2] / "data"


def paint():
    return read_results(DATA / "paint-vitb32-mnist.jsonl")[0]


ODD = (
    "$x^$",
    "$\\frac$",
    "[bold]red",
    "line\nbreak",
    "\x1b[31mred",
    "猫",
    "عربي",
    "\U0010fffd",
    "a" * 200,
    "a" * 199 + "b",
)


@pytest.mark.parametrize("name", ODD)
def test_names_stand_in_pictures_as_they_are(tmp_path, name):
    fields = {"task": name, "patching": name, "run_name": name, "run": "r", "role": "patching", "metric": name[:9]}
    rows = [paint().iloc[0].to_dict() | fields | {"alpha": alpha, "chosen": alpha == 0.5} for alpha in (0.0, 0.5, 1.0)]
    table = sweep_table(pd.DataFrame(rows))
    save_figure(draw_sweep(table, name), tmp_path / "sweep.png")  # a warning would be an error
    figure = draw_over_alpha(alpha_table(pd.DataFrame(rows)))
    save_figure(figure, tmp_path / "alpha.svg")
    usual = "Mixing zero-shot and fine-tuned weights: "
    (whole,) = [each.get_text().replace("\n", " ") for each in figure.texts if each.get_text().startswith("Mixing")]
    title = whole.removeprefix(usual)
    assert title == {"line\nbreak": "line\\nbreak", "\x1b[31mred": "\\x1b[31mred"}.get(name, title)
    assert len(title) <= 33
    assert figure._repr_png_().startswith(b"\x89PNG")  # for notebooks


def test_names_that_differ_in_the_middle_alone_stay_apart():
    names = ["a" * 40 + middle + "a" * 40 for middle in "bc"]
    table = alpha_table(
        paint().assign(task=lambda frame: frame["task"].map(dict(zip(("MNIST", "CIFAR10"), names, strict=True))))
    )
    labels = {line.get_label() for line in draw_over_alpha(table).axes[0].lines}
    assert labels >= {f"{name}, accuracy" for name in names}


def test_a_label_takes_the_place_of_a_name_everywhere():
    look = Look(labels={"MNIST": "digits $5", "paint-vitb32-mnist": "the paper's", "CIFAR10": "kept"})
    figure = draw_sweep(sweep_table(paint()), None, look)
    words = " ".join(text.replace("\n", " ") for text, _ in texts(figure))
    assert "MNIST" not in words
    assert "on the supported tasks (kept)" in words
    assert "the patching task (digits $5)" in words
    assert "the paper's" in words


def test_a_label_of_a_name_that_is_not_there_lists_the_names():
    with pytest.raises(UsageError, match="nothing in the picture is called 'SVHN'") as caught:
        draw_over_alpha(alpha_table(paint()), None, Look(labels={"SVHN": "x"}))
    assert "CIFAR10, MNIST" in caught.value.hint


@pytest.mark.parametrize(("suffix", "paper"), [(".png", False), (".pdf", True), (".svg", False)])
def test_classes_with_any_letters_are_drawn_in_every_format(tmp_path, suffix, paper):
    names = ("$x^$", "a_b", "猫", "k" * 200)
    labels = [0, 1, 2, 3, 3]
    table = confusion_table(pd.DataFrame({"label": labels, "answer": labels}), names, checkpoint="$c$", task="_t_")
    figure = draw_confusion(table, "$\\frac$ 犬", Look(paper=paper))
    save_figure(figure, tmp_path / f"picture{suffix}")
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ticks[:3] == list(names[:3])
    assert ticks[3] == "k" * 16 + "…" + "k" * 16
    assert not any(label.get_parse_math() for label in figure.axes[0].get_yticklabels())


def test_the_same_picture_has_the_same_bytes(tmp_path):
    for suffix in (".png", ".pdf", ".svg"):
        paths = [tmp_path / f"{number}{suffix}" for number in range(2)]
        for path in paths:
            save_figure(picture("training"), path)
        assert paths[0].read_bytes() == paths[1].read_bytes(), suffix


def test_models_of_a_fit_are_found_by_the_names_that_tasks_are_written_with():
    from wisepatch import draw_robustness, robustness_table

    table = robustness_table(measured(), reference="Shapes")
    models = {"Shapes": [0.5, 0.6], "corrupt:Shapes": [0.4, 0.5]}
    figure = draw_robustness(table, None, Look(labels={"Shapes": "clean"}), models=models)
    assert figure.axes[0].get_xlabel() == "accuracy on clean"
    assert [len(line.get_xydata()) for line in figure.axes[0].lines if line.get_marker() == "x"] == [2]


def test_a_long_name_among_the_supported_tasks_loses_its_middle():
    figure = draw_sweep(sweep_table(measured(tasks=("Digits", "t" * 60))))
    assert "t" * 16 + "…" + "t" * 16 in figure.axes[0].get_xlabel().replace("\n", "")
