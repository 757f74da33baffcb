"""Read images from arrays in the files of publishers (NumPy's ``.npy``, the IDX of MNIST) without running code."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wisepatch.datasets.samples import Transform
from wisepatch.pickles import NUMBERS, OBJECT, read_pickle

NPY_HEADER = re.compile(r"\{'descr': '([|<>=]?)(\w+)', 'fortran_order': (True|False), 'shape': \(([\d, L]*)\),? \}\s*")
IDX_BYTES = b"\0\0\x08"  # begins an IDX file of bytes; the number of dimensions follows


@dataclass(frozen=True)
class Pictures:
    """Hold images in an array, and their labels; grey ones are given as RGB."""

    pixels: Any  # uint8 (n, height, width, 3), or (n, height, width)
    labels: list[int]
    transform: Transform | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """Return a hash of the images and their labels: they are in memory."""
        return hashlib.sha256(self.pixels.tobytes() + repr(self.labels).encode()).hexdigest()

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.pixels[index])
        image = image if image.mode == "RGB" else image.convert("RGB")
        return (self.transform(image) if self.transform else image), self.labels[index]


def read_array(path: Path) -> Any:
    """Read the array of numbers in the ``.npy`` file ``path``. Raises :class:`ValueError` for others."""
    order, kind, is_fortran, shape, data = _read_npy(path)
    if kind not in NUMBERS:
        raise ValueError("it holds no array of numbers")
    if math.prod(shape) * np.dtype(kind).itemsize != len(data):
        raise ValueError(f"it holds {len(data)} bytes, not those of an array of {kind} {shape}")
    numbers = np.frombuffer(data, f"{order}{kind}").astype(kind)
    return numbers.reshape(shape, order="F" if is_fortran else "C")


def read_dict(path: Path, *keys: str) -> list[Any]:
    """Read the values of ``keys`` from a dict in a ``.npy`` file: a header that promises one object, then its pickled array.

    Raises :class:`ValueError` for a file that holds anything else, lacks one of ``keys``, and for one that asks for code.
    """
    _, kind, _, shape, data = _read_npy(path)
    if kind not in OBJECT or shape != ():
        raise ValueError("it holds an array, not a dict")
    return values_of(read_pickle(data), *keys)


def values_of(content: Any, *keys: str) -> list[Any]:
    """Return the values of ``keys`` from a dict that was read. Raises :class:`ValueError` where it is none, or lacks one."""
    if not isinstance(content, dict) or not set(keys) <= set(content):
        raise ValueError(f"it holds no dict with {' and '.join(keys)}")
    return [content[key] for key in keys]


def _read_npy(path: Path) -> tuple[str, str, bool, tuple[int, ...], bytes]:
    """Return byte order, type, whether columns come first, shape, and the bytes after the header of a ``.npy`` file."""
    data = path.read_bytes()
    width = 2 if data[6:7] == b"\x01" else 4  # bytes of the header's length, by version
    begin = 8 + width
    end = begin + int.from_bytes(data[8:begin], "little")
    match = NPY_HEADER.fullmatch(data[begin:end].decode("latin1")) if data[:6] == b"\x93NUMPY" else None
    if match is None:
        raise ValueError("it is no file of NumPy's with one array")
    shape = tuple(int(size.rstrip("L")) for size in match[4].replace(" ", "").split(",") if size)
    return match[1], match[2], match[3] == "True", shape, data[end:]


def read_idx(path: Path) -> Any:
    """Read the array of bytes in an IDX file, as MNIST's are. Raises :class:`ValueError` for others."""
    data = path.read_bytes()
    begin = 4 + 4 * data[3] if len(data) > 3 else 4
    shape = tuple(int.from_bytes(data[place : place + 4], "big") for place in range(4, begin, 4))
    if data[:3] != IDX_BYTES or math.prod(shape) != len(data) - begin:
        raise ValueError(f"it is no IDX file of bytes, or not whole: {len(data)} bytes")
    return np.frombuffer(data, np.uint8, offset=begin).reshape(shape)
