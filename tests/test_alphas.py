"""Alphas as people type them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzzing import or_an_error_for_users, texts
from wisepatch.alphas import DEFAULT_ALPHAS, MAX_ALPHAS, parse_alphas
from wisepatch.errors import UsageError

HOW_TO_WRITE = "write 0:1:0.1, 0,0.25,0.5, 0.5, or auto alone"


def test_a_range_holds_both_ends_and_exact_decimals():
    assert parse_alphas("0:1:0.1") == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert parse_alphas(DEFAULT_ALPHAS) == parse_alphas("0:1:0.1")


@pytest.mark.parametrize(("step", "parts"), [("0.01", 100), ("0.05", 20), ("0.001", 1000)])
def test_every_value_of_a_range_is_the_float_that_its_decimal_reads_as(step, parts):
    assert parse_alphas(f"0:1:{step}") == tuple(i / parts for i in range(parts + 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5", (0.5,)),
        ("1", (1.0,)),
        ("0,0.25,0.5", (0.0, 0.25, 0.5)),
        (" 0.5 , 0 ", (0.0, 0.5)),
        ("0.5,0,0.5,0.50", (0.0, 0.5)),
        ("0:1:0.3", (0.0, 0.3, 0.6, 0.9, 1.0)),
        ("0.2:0.4:0.1", (0.2, 0.3, 0.4)),
        ("0.5:0.5:0.1", (0.5,)),
        ("0:1:5", (0.0, 1.0)),
        ("0 : 1 : 0.5", (0.0, 0.5, 1.0)),
        ("0:0.2:0.1,0.2,1,0.15", (0.0, 0.1, 0.15, 0.2, 1.0)),
        ("5e-1", (0.5,)),
        (["0.5", "0,1"], (0.0, 0.5, 1.0)),
        (("0:1:0.5", "0.25"), (0.0, 0.25, 0.5, 1.0)),
    ],
)
def test_lists_ranges_and_mixtures_are_sorted_and_hold_each_value_once(text, expected):
    assert parse_alphas(text) == expected


def test_two_decimals_of_one_float_are_one_alpha():
    assert parse_alphas("0.1,0.10000000000000000001") == (0.1,)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.decimals(0, 1, places=4), min_size=1, max_size=8))
def test_typed_decimals_come_back_as_their_floats(values):
    assert parse_alphas(",".join(map(str, values))) == tuple(sorted({float(value) for value in values}))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("half", "alphas 'half' are not understood: 'half' is no number", HOW_TO_WRITE),
        ("0:x:0.1", "alphas '0:x:0.1' are not understood: 'x' is no number", HOW_TO_WRITE),
        ("nan", "alphas 'nan' are not understood: 'nan' is no number", HOW_TO_WRITE),
        ("inf", "alphas 'inf' are not understood: 'inf' is no number", HOW_TO_WRITE),
        ("", "alphas '' are not understood: '' is no number", HOW_TO_WRITE),
        ("0,,1", "alphas '' are not understood: '' is no number", HOW_TO_WRITE),
        ("0:1", "alphas '0:1' are not understood", HOW_TO_WRITE),
        ("0:1:0.1:2", "alphas '0:1:0.1:2' are not understood", HOW_TO_WRITE),
        ("0:1:0", "alphas '0:1:0' lead nowhere", "write START:STOP:STEP with START <= STOP and STEP > 0"),
        ("0:1:-0.1", "alphas '0:1:-0.1' lead nowhere", "write START:STOP:STEP with START <= STOP and STEP > 0"),
        ("1:0:0.1", "alphas '1:0:0.1' lead nowhere", "write START:STOP:STEP with START <= STOP and STEP > 0"),
        ("1.5", "alpha 1.5 lies outside [0, 1]", "alpha 0 is zero-shot, 1 is fine-tuned"),
        ("0.5,-0.1,2", "alpha -0.1 lies outside [0, 1]", "alpha 0 is zero-shot, 1 is fine-tuned"),
        ("0:2:0.5", "alpha 1.5 lies outside [0, 1]", "alpha 0 is zero-shot, 1 is fine-tuned"),
    ],
)
def test_alphas_that_cannot_be_right_are_usage_errors(text, message, hint):
    with pytest.raises(UsageError) as caught:
        parse_alphas(text)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_the_largest_range_is_ten_thousand_steps():
    assert len(parse_alphas("0:1:0.0001")) == MAX_ALPHAS


@pytest.mark.parametrize(
    "text",
    [
        "0:1:1e1000000",
        "-1e1000000:1e1000000:1",
        "1e1000000",
        "0:1:" + "9" * 5000,
        "0." + "3" * 500,
        "1e-99999999999999999999",
        "1" * 5000,
    ],
)
def test_alphas_with_monstrous_numbers_are_a_usage_error(text):
    with pytest.raises(UsageError) as caught:
        parse_alphas(text)
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("text", ["0:1:0.00001", "0:1:1e-5000", "0:1e999999:1e-999999"])
def test_too_many_alphas_are_a_usage_error_however_many_they_are(text):
    with pytest.raises(UsageError) as caught:
        parse_alphas(text)
    assert caught.value.message.startswith(f"alphas {text!r} are ")
    assert caught.value.hint == f"at most {MAX_ALPHAS}; take a larger step"


alpha_words = st.lists(
    texts | st.from_regex(r"-?[0-9]{1,4}(\.[0-9]{0,6})?(e-?[0-9]{1,8})?", fullmatch=True), min_size=1, max_size=4
)


@given(st.lists(alpha_words.map(":".join) | texts, max_size=3).map(",".join))
def test_fuzzed_alphas_give_numbers_from_0_to_1_or_an_error(text):
    with or_an_error_for_users:
        alphas = parse_alphas(text)
        assert all(0 <= alpha <= 1 for alpha in alphas)
        assert len(alphas) <= 3 * MAX_ALPHAS
        assert list(alphas) == sorted(set(alphas))
