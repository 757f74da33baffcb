"""The picture of a merge: what it could choose from, on the data of the choice."""

import pandas as pd
import pytest

from tests.reports.plots.pictures import LOOKS, layout_problems, texts
from wisepatch import Look
from wisepatch.analysis.intervals import wilson
from wisepatch.errors import ResultsError
from wisepatch.reports.plots import candidate_table, draw_candidates

ROLES = {"Digits": "patching", "typo:Shapes": "patching", "Shapes": "supported", "Colors": "supported"}


def merge(candidates, chosen=0, *, method="ties", roles=ROLES, split="val"):
    """Rows of a merge as a store has them: the start is number 0, an end has no number, nor has an ensemble of outputs."""
    models = [
        ("start", 0.0, "", {}),
        ("end", None, "", {}),
        ("ensemble", None, "output-logits", {"weights": [0.5, 0.5]}),
    ]
    models += [(f"merge-{number}", float(number), method, params) for number, params in enumerate(candidates, 1)]
    rows = []
    for place, (name, number, how, params) in enumerate(models):
        for task, role in roles.items():
            value = 0.05 + 0.03 * place if role == "patching" else 0.98 - 0.02 * place
            low, high = wilson(value, 100)
            rows.append({
                "run": "merge-1", "checkpoint": name, "candidate": number, "method": how, "task": task, "role": role,
                "split": split, "metric": "top1", "value": value, "n": 100, "ci_low": low, "ci_high": high,
                "chosen": number is not None and number == chosen, "selected_on": split, "patching": None,
                "alpha": params.get("alpha"), "params": {key: each for key, each in params.items() if key != "alpha"},
            })  # fmt: skip
    return pd.DataFrame(rows).astype({"alpha": float, "candidate": float})


GRID = [
    {"density": density, "consensus": "mean", "scale": scale} for density in (0.1, 0.5) for scale in (0.5, 1.0, 1.5)
]


def test_a_curve_follows_the_number_that_varies_most_and_the_chosen_merge_is_marked():
    table = candidate_table(merge(GRID, chosen=2))
    assert table["kind"].value_counts().to_dict() == {"merge": 6, "start": 1, "end": 1}
    assert set(table[table["kind"] == "merge"]["others"]) == {"density=0.1", "density=0.5"}
    figure = draw_candidates(table)
    assert layout_problems(figure) == []
    curves = [line.get_xdata() for line in figure.axes[0].lines if len(line.get_xdata()) > 1]
    assert list(map(len, curves)) == [3, 3]
    written = {text.replace("\n", " ") for text, _ in texts(figure)}
    assert {
        "ties, density=0.1",
        "ties, density=0.5",
        "the start",
        "the ends",
        "0.5",
        "1",
        "1.5",
        "VALIDATION DATA",
    } <= written
    assert "chosen on validation data (density=0.1, scale=1)" in written
    assert "n = 100 images a task; bars: 95 % intervals; numbers beside points: scale" in written


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_many_combinations_are_dots_and_long_names_have_room(look):
    grid = [{"alphas": [first / 10, second / 10]} for first in range(5) for second in range(5)]
    roles = {"a_task_" * 20: "patching", "B": "patching", "猫と犬" * 20: "supported", "$x^{2}$ " * 10: "supported"}
    figure = draw_candidates(candidate_table(merge(grid, chosen=7, method="task-arithmetic", roles=roles)), None, look)
    assert layout_problems(figure) == []
    dots = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 1]
    assert [line.get_linestyle() for line in dots] == ["None"]


def test_a_start_that_is_chosen_and_a_merge_without_a_choice():
    chosen = draw_candidates(candidate_table(merge([{"alpha": 0.5}, {"alpha": 1.0}], chosen=0)), "", Look())
    assert {"chosen on validation data", "the start"} <= {text for text, _ in texts(chosen)}
    one = draw_candidates(candidate_table(merge([{}], chosen=None, method="model-stock", split="test")))
    assert {"TEST DATA", "model-stock", "the ends", "the merge"} <= {text for text, _ in texts(one)}
    assert not any("chosen" in text for text, _ in texts(one))


def test_what_has_no_axes_is_said():
    with pytest.raises(ResultsError, match="no merge with supported tasks"):
        candidate_table(merge(GRID, roles={"Digits": "patching"}))
    with pytest.raises(ResultsError, match="no merge with supported tasks"):
        candidate_table(merge([]))
