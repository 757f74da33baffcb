"""Names stand in pictures as they are."""

from pathlib import Path

import pandas as pd
import pytest

from wisepatch import alpha_table, draw_over_alpha, draw_sweep, read_results, save_figure, sweep_table

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
    title = figure.axes[0].get_title(loc="left").removeprefix("Mixing zero-shot and fine-tuned weights: ")
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
