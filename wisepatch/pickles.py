"""Read pickles of publishers without running code: numbers, texts, lists, dicts, and NumPy's arrays of types from a list of ours.

PyTorch's files, whose tensors lie outside the pickle, are read by ``weights/torch_files.py``.

Python's own unpickler, in C, can be made to take any amount of memory by a short file, and NumPy's types to crash the process. Here
the one in Python reads, with the instructions that such files need and no others, and arrays are built from their bytes.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

NUMBERS = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
TEXT = re.compile(r"[US]\d{1,6}")
OBJECT = ("O", "O4", "O8")
NDARRAY = "numpy.ndarray"  # stands for the class, which is never called
MAX_USES, SPARE_BYTES = 4, 1 << 20  # how often a file may use its bytes, and as many more
MAX_ARGUMENTS = 16  # of a builder
MAX_NUMBER = 2**32  # as a key, or as a place in the memo: hashes of larger ones can all be made equal
MAX_SHOWN = 80  # characters of a value or name in an error
COSTS: dict[type, int] = {
    str: 1,
    bytes: 1,
    memoryview: 1,
    list: 8,
    tuple: 8,
    dict: 40,
}  # bytes that a copy of an item takes, or so
INSTRUCTIONS = """
    PROTO STOP FRAME MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT
    BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE BINUNICODE8 SHORT_BINUNICODE BINBYTES
    SHORT_BINBYTES BINBYTES8 LIST EMPTY_LIST APPEND APPENDS TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 DICT EMPTY_DICT
    SETITEM SETITEMS GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD
""".split()  # noqa: SIM905 -- reads better than a page of quotes


def read_pickle(data: bytes) -> Any:
    """Return what a pickle holds; an array is a NumPy array of numbers, or a list where it holds objects.

    Raises :class:`ValueError` for anything that is no such pickle, and for one that asks for code.
    """
    try:
        content = plain(ArrayUnpickler(io.BytesIO(data), len(data)).load())
    except Exception as error:
        # The instructions of a broken file find no operands, memo or characters: the unpickler raises errors of any kind.
        own = isinstance(error, pickle.UnpicklingError)
        raise ValueError(
            str(error) if own else f"it is no pickle of arrays ({type(error).__name__}: {error})"
        ) from error
    return {key: plain(value) for key, value in content.items()} if isinstance(content, dict) else content


def plain(value: Any) -> Any:
    """Return an array that was read as NumPy's, all else as it is."""
    return value.content() if isinstance(value, _Array) else value


class _Type:
    """A type of numbers, texts or objects, by the name and byte order that a file gives."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name, self.order = name, "="
        if not isinstance(name, str) or not (name in NUMBERS or name in OBJECT or TEXT.fullmatch(name)):
            raise pickle.UnpicklingError(f"it holds values of the type {shown(name)}, which is not known here")

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"it names the byte order {shown(state[1])}")
        self.order = state[1]

    def numbers(self, data: Any) -> np.ndarray[Any, Any]:
        """Read numbers of this type, in the byte order of the machine."""
        import numpy as np

        if self.name not in NUMBERS:
            raise pickle.UnpicklingError(f"it holds an array of the type {self.name!r}")
        raw = data.encode("latin1") if isinstance(data, str) else bytes(data)  # Python 2 wrote bytes as text
        return np.frombuffer(raw, f"{self.order}{self.name}").astype(self.name)


class _Array:
    """An array whose parts are yet to come, as NumPy's pickles make one."""

    def __init__(self, kind: Any, *_: Any) -> None:
        if kind is not NDARRAY:
            raise pickle.UnpicklingError("it holds an array of another kind")
        self.shape: tuple[int, ...] = ()
        self.values: Any = None

    def __setstate__(self, state: Any) -> None:
        import numpy as np

        shape, kind, is_fortran, data = state[-4:]
        if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
            raise pickle.UnpicklingError("it holds an array whose shape is none")
        self.values = data if kind.name in OBJECT else kind.numbers(data)
        if not isinstance(self.values, list | np.ndarray) or len(self.values) != math.prod(shape):
            raise pickle.UnpicklingError(f"it holds an array of {shape} without its values")
        if isinstance(self.values, np.ndarray):
            self.values = self.values.reshape(shape, order="F" if is_fortran else "C")
        self.shape = shape

    def content(self) -> Any:
        """Return the numbers as an array, objects as a list, the object of an array without dimensions as it is."""
        if self.values is None:
            raise pickle.UnpicklingError("it holds an array without its values")
        return self.values[0] if isinstance(self.values, list) and self.shape == () else self.values


def _scalar(kind: Any, data: Any = b"") -> Any:
    if kind.name.startswith("U"):
        return data.decode("utf-32-be" if kind.order == ">" or sys.byteorder == "big" else "utf-32-le").rstrip("\0")
    return data if kind.name.startswith("S") else kind.numbers(data)[0].item()


def _latin1(text: Any, encoding: Any = None) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it holds bytes in the encoding {shown(encoding)}")
    encoded: bytes = text.encode("latin1")
    return encoded


def _no_bytes() -> bytes:
    return b""


BUILDERS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _latin1,
    ("__builtin__", "bytes"): _no_bytes,  # so old protocols write an empty one
    **{(f"{core}.multiarray", "_reconstruct"): _Array for core in ("numpy.core", "numpy._core")},  # NumPy 2 renamed it
    **{(f"{core}.multiarray", "scalar"): _scalar for core in ("numpy.core", "numpy._core")},
}


def shown(value: Any) -> str:
    """Write a value for an error; of all but texts and numbers the type alone: lists within lists may take for ever."""
    return repr(value)[:MAX_SHOWN] if type(value) in (str, int, float) else f"a {type(value).__name__}"


def refusal(name: str) -> pickle.UnpicklingError:
    """Make the error that names what a file asks for."""
    return pickle.UnpicklingError(f"it asks for {name[:MAX_SHOWN]}, and no code of a file is run")


def check_keys(keys: Iterable[Any]) -> None:
    """Refuse keys of a dict that may take for ever to hash (nested tuples), or to find among others (large numbers)."""
    if not all(type(key) in (str, bytes) or (type(key) is int and abs(key) < MAX_NUMBER) for key in keys):
        raise pickle.UnpicklingError("it holds a dict whose keys are no texts or small numbers")


Unpickler: Any = pickle._Unpickler


class ArrayUnpickler(Unpickler):  # type: ignore[misc]
    """Know the instructions and the names that pickles of arrays need; every other one is refused before it is looked up."""

    def __init__(self, file: Any, size: int) -> None:
        """Read from ``file``, which has ``size`` bytes."""
        super().__init__(file, encoding="latin1")
        self.used, self.usable = 0, MAX_USES * size + SPARE_BYTES

    def use(self, values: Any) -> None:
        """Count what is handed to a builder, which may copy it: a short file can name one long value again and again."""
        parts = values if isinstance(values, tuple) and len(values) <= MAX_ARGUMENTS else (values,)
        self.used += sum(COSTS[type(part)] * len(part) for part in parts if type(part) in COSTS)
        if self.used > self.usable:
            raise pickle.UnpicklingError(
                "it uses one value again and again, and takes much more memory than it has bytes"
            )

    def _reduce(self) -> None:
        self.use(self.stack[-1])
        self.load_reduce()

    def find_class(self, module: str, name: str) -> Any:
        """Return a builder of ours. Raises :class:`pickle.UnpicklingError` for any other name."""
        if (module, name) not in BUILDERS:
            raise refusal(f"{module}.{name}")
        return BUILDERS[module, name]

    def _build(self) -> None:
        if not isinstance(self.stack[-2], _Type | _Array):
            raise pickle.UnpicklingError("it changes something that is no array")
        self.use(self.stack[-1])
        self.load_build()

    def _with_checked_keys(self, keys: slice, load: Callable[[Any], None]) -> None:
        check_keys(self.stack[keys])
        load(self)

    def _put(self) -> None:
        place = int(self.readline())
        if not 0 <= place < MAX_NUMBER:
            raise pickle.UnpicklingError("it keeps a value at a place that is none")
        self.memo[place] = self.stack[-1]

    dispatch = {  # noqa: RUF012 -- as in the class above
        **{code: Unpickler.dispatch[code] for code in (getattr(pickle, name)[0] for name in INSTRUCTIONS)},
        pickle.REDUCE[0]: _reduce,
        pickle.BUILD[0]: _build,
        pickle.PUT[0]: _put,
        pickle.SETITEM[0]: lambda self: self._with_checked_keys(slice(-2, -1), Unpickler.load_setitem),
        pickle.SETITEMS[0]: lambda self: self._with_checked_keys(slice(0, None, 2), Unpickler.load_setitems),
        pickle.DICT[0]: lambda self: self._with_checked_keys(slice(0, None, 2), Unpickler.load_dict),
    }
