"""Curves of runs that are averaged."""

import pandas as pd
import pytest

from wisepatch.reports.plots import mean_over_runs


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
    assert plain[["patching_low", "patching_high"]].isna().all(axis=None)
    assert (other["patching"].tolist(), other["chosen"].tolist()) == ([0.1, 0.2, 0.3], [False, True, False])
