"""The arithmetic of mixes in numpy: the bits of :func:`wisepatch.weights.interpolation.mix`, in arrays that stay in cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wisepatch.weights.tensorfiles import SIZES

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

BLOCK = 1 << 16  # numbers that are mixed at a time: three arrays of them stay in a core's cache
FISHER_FLOOR = 1e-8  # WiSE-FT's: where no end cares, the mix is the linear one


class Mixer:
    """Scratch arrays for mixes of up to :data:`BLOCK` numbers."""

    def __init__(self) -> None:
        """Make room."""
        import numpy as np

        self.scratch = [np.empty(BLOCK, np.float64) for _ in range(3)]
        self.different = np.empty(BLOCK, np.bool_)

    def mix(
        self, stored: Array, dtype: str, other: Array, its: str, alpha: float, fishers: tuple[Array, Array] | None = None
    ) -> None:  # fmt: skip
        """Mix ``other`` into ``stored``; numbers whose bits are the same in both are not touched.

        ``fishers`` are the Fisher information of both, by which each number has an alpha of its own.
        """
        import numpy as np

        count, different = len(stored), self.different[: len(stored)]
        kind = "<f8" if dtype == "F64" else "<f4"
        start_room, end_room, mixed = (room.view(kind)[:count] for room in self.scratch)
        if dtype == its:
            bits = f"<u{SIZES[dtype]}"
            np.not_equal(stored.view(bits), other.view(bits), out=different)
            if not (changed := np.count_nonzero(different)):
                return
        start, end = _widen(stored, dtype, start_room), _widen(other, its, end_room)
        if dtype != its:
            bits = kind.replace("f", "u")
            np.not_equal(start.view(bits), end.view(bits), out=different)
            changed = np.count_nonzero(different)
        if alpha == 1:
            mixed = end
        else:
            base, factor = _weighed(start, end, alpha, fishers)
            np.subtract(end, start, out=mixed)
            np.multiply(mixed, factor, out=mixed)
            if changed == count and stored.dtype == mixed.dtype:
                np.add(mixed, base, out=stored)
                return
            np.add(mixed, base, out=mixed)
        narrow = _round_bf16(mixed, self.scratch[0].view("<u4")[:count]) if dtype == "BF16" else mixed
        np.copyto(stored, narrow, casting="unsafe", where=True if changed == count else different)


def _weighed(start: Array, end: Array, alpha: float, fishers: tuple[Array, Array] | None) -> tuple[Array, Any]:
    """The nearer end, and how much of the difference is added to it; number by number with ``fishers``."""
    import numpy as np

    if fishers is None:
        weight = float(start.dtype.type(alpha))
        return (start, weight) if weight < 0.5 else (end, weight - 1)
    first, last = (np.maximum(fisher.astype(start.dtype, copy=False), FISHER_FLOOR) for fisher in fishers)
    taken = alpha * last
    share = taken / ((1 - alpha) * first + taken)
    share[first == last] = alpha
    return np.where(share < 0.5, start, end), np.where(share < 0.5, share, share - 1)


def _widen(stored: Array, dtype: str, room: Array) -> Array:
    """The numbers in the type of ``room``, which they fill unless they are of that type already."""
    import numpy as np

    if dtype == "BF16":
        if room.dtype.itemsize == 8:
            room[:] = _widen(stored, dtype, np.empty(len(stored), "<f4"))
        else:
            bits = room.view("<u4")
            np.copyto(bits, stored)
            np.left_shift(bits, 16, out=bits)
        return room
    if stored.dtype == room.dtype:
        return stored
    np.copyto(room, stored, casting="same_kind")
    return room


def _round_bf16(wide: Array, room: Array) -> Array:
    """The bits of fp32 numbers as bf16, to nearest, ties to even; in the low half of each number of ``room``."""
    import numpy as np

    bits = wide.view("<u4")
    np.right_shift(bits, 16, out=room)
    np.bitwise_and(room, 1, out=room)
    np.add(room, 0x7FFF, out=room)
    np.add(room, bits, out=room)
    np.right_shift(room, 16, out=room)
    if np.isnan(wide.max(initial=0)):
        np.copyto(room, 0x7FC0, where=np.isnan(wide))
    return room
