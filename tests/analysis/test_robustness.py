"""Effective robustness: the published figures, the paper's equation, and accuracies at the ends."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wisepatch.analysis.robustness import (
    LINES,
    REFERENCE,
    Line,
    effective_robustness,
    expit,
    find_line,
    fit_line,
    fit_lines,
    logit,
    read_models,
    restricted,
    robustness_interval,
    robustness_points,
)
from wisepatch.errors import ResultsError
from wisepatch.store.results import read

SWEEP = Path(__file__).parents[1] / "data" / "wiseft-vitb16-imagenet.jsonl"
fractions = st.floats(0.001, 0.999)


def test_published_sweep_has_the_published_effective_robustness():
    frame, _ = read(SWEEP)
    table = frame.pivot(index="alpha", columns="task", values="value")
    line = find_line("ImageNetV2", list(table))
    rho = effective_robustness(table["ImageNet"], table["ImageNetV2"], line)
    assert [round(float(rho[list(table.index).index(alpha)]), 1) for alpha in (0, 1, 0.5)] == [6.7, 0.7, 2.1]


@given(fractions, fractions, st.floats(0.2, 4), st.floats(-8, 2))
def test_rho_is_the_distance_above_the_line(reference, shift, slope, intercept):
    odds = (reference / (1 - reference)) ** slope * math.exp(intercept)  # the paper's line, without logits
    expected = 100 * (shift - odds / (1 + odds))
    assert effective_robustness(reference, shift, Line("s", "r", slope, intercept)) == pytest.approx(expected, abs=1e-6)


@given(fractions)
def test_expit_undoes_logit(fraction):
    assert float(expit(logit(fraction))) == pytest.approx(fraction, rel=1e-12)


def test_accuracies_at_the_ends_have_a_finite_rho_and_nan_stays():
    for line in LINES:
        rho = effective_robustness([0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0], line)
        assert np.isfinite(rho).all()
        assert rho[2] == pytest.approx(100, abs=0.1)
    assert np.isnan(effective_robustness([0.5, math.nan], [math.nan, 0.5], LINES[0])).all()
    assert np.isfinite(logit([0.0, 1.0])).all()


def test_the_line_of_restricted_classes_is_for_sweeps_that_hold_their_accuracy():
    whole = find_line("ImageNetR", ["ImageNet", "ImageNetR"])
    assert (whole.reference, whole.slope) == (REFERENCE, 0.912)
    own = find_line("ImageNetR", ["ImageNet", "ImageNetR", "ImageNetRValClasses"])
    assert (own.reference, own.slope, own.r2) == (restricted("ImageNetR"), 0.637, 0.889)
    assert find_line("ImageNetV2", ["ImageNetV2ValClasses"]) is None
    assert find_line("CIFAR10.1", ["CIFAR10"]) is None
    assert find_line("ImageNetV2", ["CIFAR10"], "CIFAR10") is None


def test_lines_are_those_of_the_shared_table():
    table = {(line.shift, line.reference == REFERENCE): (line.slope, line.intercept, line.r2) for line in LINES}
    assert table == {
        ("ImageNetV2", True): (0.923, -0.498, 0.996), ("ImageNetSketch", True): (1.071, -2.370, 0.869),
        ("ImageNetR", True): (0.912, -1.600, 0.877), ("ObjectNet", True): (1.199, -2.024, 0.941),
        ("ImageNetA", True): (3.052, -6.292, 0.773), ("ImageNetR", False): (0.637, -2.108, 0.889),
        ("ObjectNet", False): (0.981, -1.928, 0.953), ("ImageNetA", False): (1.990, -7.632, 0.828),
    }  # fmt: skip


@given(st.floats(0.3, 3), st.floats(-3, 1), st.lists(fractions, min_size=3, max_size=9, unique=True))
def test_a_fit_finds_the_line_that_models_lie_on(slope, intercept, accuracies):
    line = Line("s", "r", slope, intercept)
    shifted = line.predict(accuracies)
    if np.ptp(logit(accuracies)) < 0.1 or shifted.min() < 1e-5 or shifted.max() > 1 - 1e-5:
        return
    found = fit_line("s", "r", accuracies, shifted)
    assert (found.slope, found.intercept) == (pytest.approx(slope, abs=1e-4), pytest.approx(intercept, abs=1e-4))
    assert found.r2 == pytest.approx(1, abs=1e-6)


def test_a_fit_is_least_squares_in_logits():
    x, y = np.array([0.5, 0.6, 0.7, 0.8]), np.array([0.3, 0.45, 0.5, 0.7])
    line = fit_line("s", "r", [*x, math.nan], [*y, 0.5], "mine")
    design = np.stack([np.log(x / (1 - x)), np.ones(4)], 1)
    slope, intercept = np.linalg.lstsq(design, np.log(y / (1 - y)), rcond=None)[0]
    assert (line.slope, line.intercept) == (pytest.approx(slope), pytest.approx(intercept))
    assert line.source == "mine, 4 models"
    assert 0.9 < line.r2 < 1


def test_too_few_models_are_no_line():
    for x, y in (([0.5, 0.6], [0.4, 0.5]), ([0.5] * 4, [0.1, 0.2, 0.3, 0.4])):
        with pytest.raises(ResultsError, match="no line can be fitted to r and s") as caught:
            fit_line("s", "r", x, y)
        assert "3 models" in caught.value.hint


def test_standard_models_are_read_as_fractions_or_per_cent(tmp_path):
    path = tmp_path / "models.csv"
    path.write_text("model,ImageNet,ImageNetV2,parameters\na,60,48,1e6\nb,70,58,2e6\nc,80,,3e6\nd,76.5,64.5,3e6\n")
    models = read_models(path)
    assert list(models) == ["ImageNet", "ImageNetV2"]
    assert models["ImageNet"] == pytest.approx([0.6, 0.7, 0.8, 0.765])
    fractions_path = tmp_path / "fractions.csv"
    fractions_path.write_text("ImageNet;ImageNetV2\n0.6;0.48\n0.7;0.58\n0.765;0.645\n")
    lines = [fit_lines(each, "ImageNet", ["ImageNetV2", "ImageNetA"])["ImageNetV2"] for each in (path, fractions_path)]
    assert lines[0].slope == pytest.approx(lines[1].slope)
    assert lines[0].source == "models.csv, 3 models"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file"),
        (b"", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"model,name\na,b\n", "hold no numbers"),
        (b"model,CIFAR10\na,0.5\n", "have no column 'ImageNet'"),
        (b"ImageNet,CIFAR10\n0.4,0.5\n", "have no column of ImageNetV2"),
    ],
)
def test_a_file_without_standard_models_says_what_is_missing(tmp_path, content, reason):
    path = tmp_path / "models.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ResultsError, match=reason) as caught:
        fit_lines(path, "ImageNet", ["ImageNetV2"])
    assert caught.value.hint


def test_the_interval_holds_rho_and_is_that_of_the_shift_where_the_reference_is_exact():
    line = find_line("ImageNetV2", [])
    low, high = robustness_interval(line, (0.7, 0.7, 0.7), (0.6, 0.55, 0.66))
    rho = effective_robustness(0.7, 0.6, line)
    assert (low, high) == (pytest.approx(rho - 5), pytest.approx(rho + 6))
    wider = robustness_interval(line, (0.7, 0.69, 0.71), (0.6, 0.55, 0.66))
    assert wider[0] < low < rho < high < wider[1]
    assert np.isnan(robustness_interval(line, (0.7, math.nan, math.nan), (0.6, 0.55, 0.66))).all()


def test_points_without_a_line_have_no_rho():
    point = {"value": [0.5], "ci_low": [0.4], "ci_high": [0.6]}
    assert np.isnan(robustness_points(None, point, point)["rho"]).all()
    known = robustness_points(Line("s", "r", 1, 0), point, point)
    assert (known["rho"], known["predicted"]) == (pytest.approx(0), pytest.approx(0.5))
    assert known["rho_low"] < 0 < known["rho_high"]
