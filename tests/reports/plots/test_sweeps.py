"""Curves of runs that are averaged."""

import pandas as pd
import pytest

from tests.reports.plots.pictures import both
from wisepatch.reports.plots import draw_sweep, mean_over_runs, sweep_table


def curve(run, values):
    return pd.DataFrame(
        {
            "run": run, "run_name": run, "alpha": [0.0, 0.5, 1.0], "patching": values, "supported": [0.9, 0.8, 0.7],
            "chosen": [False, True, False], "patching_low": 0.1, "patching_high": 0.9,
        }
    )  # fmt: skip


def test_runs_of_one_name_are_averaged_alpha_by_alpha_and_one_alone_stays_as_it_is():
    table = pd.concat([curve("a", [0.2, 0.4, 0.6]), curve("b", [0.4, 0.6, 0.8]), curve("c", [0.1, 0.2, 0.3])])
    averaged = mean_over_runs(table, {"a": "plain", "b": "plain", "c": "other"})
    plain, other = (averaged[averaged["run_name"] == name] for name in ("plain", "other"))
    assert plain["patching"].tolist() == pytest.approx([0.3, 0.5, 0.7])
    assert plain["supported"].tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert not plain["chosen"].any()
    assert plain["averaged"].tolist() == [2, 2, 2]
    assert plain[["patching_low", "patching_high"]].isna().all(axis=None)
    assert (other["patching"].tolist(), other["chosen"].tolist()) == ([0.1, 0.2, 0.3], [False, True, False])


def test_a_picture_of_averaged_runs_says_over_how_many():
    seeds = pd.concat([both().assign(run=name) for name in ("a", "b")])
    figure = draw_sweep(mean_over_runs(sweep_table(seeds), {"a": "plain", "b": "plain"}))
    assert any(text.get_text().endswith("; means over 2 runs") for text in figure.texts)
