"""What fuzz tests share. They are named ``test_fuzzed_...``: a hundred inputs each by default, tens of thousands with
``pytest -k fuzzed --hypothesis-profile=thorough``. Whatever is read, it gives a value or an error for users, and nothing else."""

from contextlib import suppress

from hypothesis import strategies as st

from wisepatch.errors import WisepatchError

# Strings that parsers stumble over, among those that hypothesis draws.
ODD_TEXTS = (
    "", " ", "nan", "inf", "-inf", "1e400", "1e1000000", "9" * 5000, "0x10", "\0", "\ud800", "\x1b[31m", "a@val", "@", "..",
    "/", "~",
    "~nobody", "typo:", "typo:typo:a", "hf:", "x" * 300, "é", "e\u0301", "\u0661", "1_000", "=1+1", "null", "-0.0", ":", "::",
    ",", "=", "\n",
)  # fmt: skip
texts = st.sampled_from(ODD_TEXTS) | st.text(max_size=20)
numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 2**63, 1e308])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


@st.composite
def damaged(draw, whole):
    """``whole`` (bytes) with some places overwritten, filled in, left out, repeated or cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        size = draw(st.integers(1, 8))
        match draw(st.sampled_from("owrdc")):
            case "o":
                data[place : place + size] = draw(st.binary(min_size=1, max_size=size))
            case "w":
                data[place:place] = draw(st.binary(min_size=1, max_size=size))
            case "r":
                data[place:place] = data[place : place + 8 * size]
            case "d":
                del data[place : place + size]
            case "c":
                del data[place:]
    return bytes(data)


@st.composite
def changed(draw, whole):
    """``whole`` (of JSON types) with some values, at any depth, replaced, left out or added."""
    if draw(st.integers(0, 3)) == 0 or not isinstance(whole, dict | list) or not whole:
        return draw(values)
    result = dict(whole) if isinstance(whole, dict) else list(whole)
    key = draw(st.sampled_from(sorted(result) if isinstance(result, dict) else range(len(result))))
    match draw(st.sampled_from("rcda")):
        case "r":
            result[key] = draw(values)
        case "c":
            result[key] = draw(changed(result[key]))
        case "d":
            del result[key]
        case "a" if isinstance(result, dict):
            result[draw(texts)] = draw(values)
        case "a":
            result.append(draw(values))
    return result


# What is read gives a value, or an error that users can mend.
or_an_error_for_users = suppress(WisepatchError)
