"""Read images from NumPy's files without running code: a file's pickle may build arrays and nothing else."""

from __future__ import annotations

import codecs
import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wisepatch.datasets.samples import Transform


@dataclass(frozen=True)
class Pictures:
    """Hold images in an array, and their labels."""

    pixels: Any  # uint8 (n, height, width, 3)
    labels: list[int]
    transform: Transform | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """Return a hash of the images and their labels: they are in memory."""
        return hashlib.sha256(self.pixels.tobytes() + repr(self.labels).encode()).hexdigest()

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.pixels[index])
        return (self.transform(image) if self.transform else image), self.labels[index]


def read_array(path: Path) -> Any:
    """Read the array of numbers in the ``.npy`` file ``path``. Raises :class:`ValueError` or :class:`EOFError` for others."""
    try:
        return np.load(path, allow_pickle=False)
    except ValueError as error:  # NumPy's words advise to load it unsafely
        raise ValueError("it holds no array of numbers") from error


def read_dict(path: Path, *keys: str) -> list[Any]:
    """Read the values of ``keys`` from a dict in a ``.npy`` file: a header that promises one object, then its pickled array.

    Raises :class:`ValueError` for a file that holds anything else, lacks one of ``keys``, and for one that asks for code.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
        if kind != np.dtype(object) or shape != ():
            raise ValueError(f"it holds an array of {kind}, not a dict")
        try:
            content = ArrayUnpickler(file, encoding="latin1").load().item()
        except (pickle.UnpicklingError, EOFError, AttributeError) as error:  # cut off; no array at all
            raise ValueError(str(error)) from error
    if not isinstance(content, dict) or not set(keys) <= set(content):
        raise ValueError(f"it holds no dict with {' and '.join(keys)}")
    return [content[key] for key in keys]


class ArrayUnpickler(pickle.Unpickler):
    """Build arrays as NumPy's own pickles do, and refuse every other name before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of NumPy's builders of arrays. Raises :class:`pickle.UnpicklingError` for any other name."""
        array, scalar = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]
        known = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype, ("_codecs", "encode"): codecs.encode}
        for core in ("numpy.core", "numpy._core"):  # NumPy 2 renamed it
            known |= {(f"{core}.multiarray", "_reconstruct"): array, (f"{core}.multiarray", "scalar"): scalar}
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and no code of a file is run")
        return known[module, name]
