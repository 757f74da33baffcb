"""Numbers as people read them."""

import pytest

from wisepatch.reports.numbers import with_interval


@pytest.mark.parametrize(
    ("metric", "written"),
    [
        ("top1", "34.5 (30.0 to 40.0)"),
        ("top1[fog]", "34.5 (30.0 to 40.0)"),
        ("of_a_plugin_that_is_gone", "34.5 (30.0 to 40.0)"),
        ("brier", "0.345 (0.300 to 0.400)"),
    ],
)
def test_fractions_are_written_in_per_cent_and_other_numbers_as_they_are(metric, written):
    assert with_interval({"metric": metric, "value": 0.345, "ci_low": 0.3, "ci_high": 0.4}) == written


def test_a_number_that_is_missing_is_a_dash():
    assert with_interval({"metric": "brier", "value": float("nan"), "ci_low": None}) == "-"
