"""Parameters of merge methods: grids, defaults, and what is refused."""

import pytest

from wisepatch.errors import UnknownNameError, UsageError
from wisepatch.hookspecs import MergeMethod
from wisepatch.plugins import find_merge_method
from wisepatch.weights.parameters import described, params_problem, read_params


def read(method, *words, ends=3):
    return read_params(find_merge_method(method), words, ends)


def test_defaults_are_one_candidate():
    assert read("ties") == [{"density": 0.2, "consensus": "mean", "scale": 1.0}]
    assert read("task-arithmetic") == [{"alpha": 0.4}]
    assert read("lines") == [{"beta": 0.5}]


def test_several_parameters_are_the_grid_of_all_their_values():
    grid = read("ties", "density=0.1:0.5:0.2", "scale=0:1:0.5", "consensus=sum,mean")
    assert len(grid) == 3 * 3 * 2
    assert {each["density"] for each in grid} == {0.1, 0.3, 0.5}
    assert {each["scale"] for each in grid} == {0, 0.5, 1}
    assert {each["consensus"] for each in grid} == {"sum", "mean"}


def test_numbers_are_decimals_of_any_sign_and_integers_stay_integers():
    assert [each["alpha"] for each in read("task-arithmetic", "alpha=-0.5:0.1:0.3")] == [-0.5, -0.2, 0.1]
    assert [each["seed"] for each in read("dare", "seed=0:2:1")] == [0, 1, 2]
    assert all(type(each["seed"]) is int for each in read("dare", "seed=0:2:1"))


def test_a_number_for_each_end_takes_the_place_of_one_for_all():
    assert read("task-arithmetic", "alphas=0.5/0.2/-0.1, 1/1/1") == [
        {"alphas": [0.5, 0.2, -0.1]},
        {"alphas": [1, 1, 1]},
    ]
    assert read("linear", "weights=1/2/1") == [{"weights": [1, 2, 1]}]


@pytest.mark.parametrize(
    ("method", "word", "message", "hint"),
    [
        ("ties", "density=1.5", "ties cannot have density 1.5, which is not from 0 to 1", "density: share"),
        ("ties", "density=0:2:0.5", "ties cannot have density 1.5, which is not from 0 to 1", "density: share"),
        ("ties", "consensus=maen", "ties cannot have consensus maen, which is none of mean, sum", "did you mean mean?"),
        ("ties", "density", "--param 'density' has no value", "write --param name=VALUES"),
        ("ties", "scale=fast", "values of scale 'fast' are not understood: 'fast' is no number", "write 0:1:0.1"),
        ("dare", "drop=1", "dare cannot have drop 1.0, which is not from 0 to 0.9999", "drop: share"),
        ("dare", "seed=0.5", "dare cannot have seed 0.5, which is no whole number", "seed: of the draws"),
        ("dare", "seed=-1", "dare cannot have seed -1, which is below 0", "seed: of the draws"),
        ("task-arithmetic", "alphas=1/2", "task-arithmetic cannot have 2 alphas for 3 ends", "alphas: a scale"),
        ("linear", "weights=1/-1/1", "linear cannot have weights -1.0, which is below 0", "weights: how much"),
        ("dare", "scale=1e7", "dare cannot have scale 10000000.0, which is no number up to 1,000,000", "scale: scale"),
        (
            "linear",
            "weights=1/1/1e7",
            "linear cannot have weights [1.0, 1.0, 10000000.0], which are no numbers up to 1,000,000",
            "weights",
        ),
        ("linear", "weights=0/0/0", "linear cannot have weights that add up to nothing", "weights: how much"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_does(method, word, message, hint):
    with pytest.raises(UsageError) as caught:
        read(method, word)
    assert caught.value.message == message
    assert caught.value.hint.startswith(hint)
    assert "auto" not in caught.value.hint


def test_an_unknown_parameter_is_named_with_close_ones():
    with pytest.raises(UnknownNameError, match=r"unknown parameter of ties 'densty'; did you mean density\?") as caught:
        read("ties", "densty=0.5")
    assert caught.value.hint == "known: consensus, density, scale"
    with pytest.raises(UsageError, match="mine has no parameters, and 'a' is given"):
        read_params(MergeMethod("mine", sum), ["a=1"])


def test_a_parameter_that_is_given_twice_or_beside_its_other_form_is_refused():
    with pytest.raises(UsageError, match="--param scale is given twice"):
        read("ties", "scale=1", "scale=2")
    with pytest.raises(UsageError, match="alpha and alphas take each other's place, and both are given"):
        read("task-arithmetic", "alpha=1", "alphas=1/1/1")


def test_more_candidates_than_anybody_waits_for_are_refused():
    with pytest.raises(UsageError, match="more than 10000 candidates"):
        read("ties", "density=0:1:0.001", "scale=0:1:0.001")


def test_every_default_fits_its_own_method():
    for name in ("task-arithmetic", "ties", "dare", "breadcrumbs", "lines", "model-stock", "tsv-m", "iso-c", "iso-cts"):
        for ends in (2, 3):
            method = find_merge_method(name)
            assert params_problem(method, ends + 1, read_params(method, [], ends)[0]) == ""


def test_parameters_are_written_for_people():
    params = {
        "density": 0.25,
        "consensus": "mean",
        "alphas": [0.5, 1.0],
        "layers": {"visual": 0.1},
        "gram": {"files": []},
    }
    assert described(params) == "density=0.25, consensus=mean, alphas=0.5/1, layers=visual:0.1"
