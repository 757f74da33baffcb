"""The reader of pickles: arrays of NumPy's as they were, nothing that runs, crashes or takes all memory."""

import pickle
import pickletools
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import damaged
from wisepatch.pickles import INSTRUCTIONS, read_pickle

CONTENT = {
    "images": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "labels": [1, 2], "number": np.float32(0.5),
    "words": np.array(["a", "é"], object),
    "name": np.str_("été"), "bytes": np.bytes_(b"ab"), "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "none": None,
    "big": np.arange(3, dtype=">i4"), "flags": np.array([True, False]), "empty": np.zeros((0, 3), np.int64), "real": 1.5,
    "long": 2**70,
}  # fmt: skip


@pytest.mark.parametrize("protocol", range(5))
def test_arrays_lists_texts_and_numbers_are_read_as_they_were(protocol):
    read = read_pickle(pickle.dumps(CONTENT, protocol=protocol))
    assert list(read) == list(CONTENT)
    for name, expected in CONTENT.items():
        if isinstance(expected, np.ndarray) and expected.dtype != object:
            assert np.array_equal(read[name], expected)
            assert read[name].dtype == expected.dtype.newbyteorder("=")
        else:
            assert read[name] == (expected.tolist() if isinstance(expected, np.ndarray) else expected)
    assert read_pickle(pickle.dumps(np.array({"a": 1}, object), protocol=protocol)) == {"a": 1}


def test_pickles_of_python_2_are_read():
    """Bytes are text in them, of which every letter is a byte."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntRq\x01"
    kind = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
    whole = b"(dS'data'\n" + array + b"(I1\n(I2\ntq\x03" + kind + b"I0\nS'\\xff\\x01'\ntbsS'labels'\n(lI1\naI2\nas."
    assert {name: list(each) for name, each in read_pickle(whole).items()} == {"data": [255, 1], "labels": [1, 2]}


class Reduced:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def dtype_with(flags):
    """An array whose type's flags come from the file: NumPy then takes its bytes for Python objects, and crashes."""
    whole = pickle.dumps(np.arange(4), 2)
    sizes = b"J\xff\xff\xff\xff" * 2
    return whole.replace(sizes + b"K\x00", sizes + flags)


def test_flags_of_a_type_that_come_from_the_file_are_not_used():
    assert dtype_with(b"K\x3f") != pickle.dumps(np.arange(4), 2)
    assert list(read_pickle(dtype_with(b"K\x3f"))) == [0, 1, 2, 3]


HOSTILE = {
    "calls a function": (Reduced(print, ("boom",)), "asks for .*print"),
    "calls a type": (Reduced(np.ndarray, ((2, 2),)), "not callable"),
    "types of structures": (np.zeros(2, [("a", "i4"), ("b", "O")]), "of the type 'V"),
    "types of times": (np.zeros(2, "M8[s]"), "of the type 'M8'"),
    "complex numbers": (np.zeros(2, complex), "of the type 'c16'"),
    "keys of tuples": ({((1,), 2): 3}, "keys are no texts"),
    "keys of equal hashes": ({2**61: 1, 2**62: 1}, "keys are no texts or small numbers"),
    "sets": ({1, 2}, "asks for __builtin__.set|no pickle of arrays"),
    "subclass": (Reduced(np.zeros(0).__reduce__()[0], (np.matrix, (0,), b"b")), "asks for numpy"),
    "codec": (Reduced(pickle.loads, (b"",)), "asks for .*pickle.loads"),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_what_asks_for_more_is_refused(case, protocol):
    content, message = HOSTILE[case]
    with pytest.raises(ValueError, match=message):
        read_pickle(pickle.dumps(content, protocol))


@pytest.mark.parametrize(
    "data",
    [
        b"", b".", b"N", b"\x80\x05N.", b"(((((.", b"]" * 100 + b".", b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xffN.",
        b"Nr\xff\xff\xff\x7f.",
        b"B\xff\xff\xff\x7f.", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", b"I" + b"9" * 5000 + b"\n.", b"c__main__\nx\n.",
        b"]q\x01h\x01ah\x02.",
        b"cnumpy\ndtype\n(S'u1'\ntR}S'a'\nI1\nsb.", b"c_codecs\nencode\n(VX\nVzlib\ntR.", b"N\x82\x01.", b"(i__main__\nx\n.",
        b"NQ.", b"cnumpy\nndarray\n)R.",
        b"cnumpy.core.multiarray\n_reconstruct\n(NNNtR.", b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nNNtR.",
    ],
)  # fmt: skip
def test_a_broken_pickle_takes_no_memory(data):
    tracemalloc.start()
    try:
        with suppress(ValueError):  # some are whole after all
            read_pickle(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


whole = st.sampled_from(
    [pickle.dumps({k: v}, protocol) for k, v in CONTENT.items() for protocol in (0, 2, 4)] + [dtype_with(b"K\x3f")]
)
opcodes = {op.name: op.code.encode("latin1") for op in pickletools.opcodes}
operands = st.binary(max_size=8) | st.sampled_from(
    [b"numpy\ndtype\n", b"numpy\nndarray\n", b"numpy.core.multiarray\n_reconstruct\n", b"\x01", b"1\n"]
)
programs = st.lists(st.tuples(st.sampled_from(sorted(INSTRUCTIONS)), operands), max_size=30)


@given(
    whole.flatmap(damaged)
    | programs.map(lambda steps: b"".join(opcodes[name] + operand for name, operand in steps) + b".")
)
def test_fuzzed_pickles_give_values_or_a_value_error(data):
    with suppress(ValueError):
        read_pickle(data)
