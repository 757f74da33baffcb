"""Weights in, weights out: ``theta = (1 - alpha) * theta_0 + alpha * theta_1`` (WiSE-FT eq. 1, PAINT section 2).

State dicts only; knows no model. The mix is one subtraction, one multiplication and one addition in fp32, from the nearer end,
each rounded for itself: the same bits on every machine, and those of :mod:`wisepatch.weights.streaming` (``torch.lerp`` fuses
two of them where the processor can). Both ends come out bit for bit, and equal weights stay as they are at any alpha.

With the Fisher information of both ends every weight has an alpha of its own (Matena and Raffel 2021, arXiv 2111.09832; WiSE-FT's
code).
"""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from wisepatch.errors import StoreError
from wisepatch.files import PARTIAL
from wisepatch.weights.mixing import FISHER_FLOOR
from wisepatch.weights.streaming import merge_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import torch

    from wisepatch.store.checkpoints import Checkpoint, Store

    Tensors = Mapping[str, torch.Tensor]
    Fishers = tuple[Tensors, Tensors]

COUNTERS = "num_batches_tracked"  # batch normalisation's, which differ by training and do not matter


def interpolate(
    theta_0: Tensors, theta_1: Tensors, alpha: float, fishers: Fishers | None = None
) -> dict[str, torch.Tensor]:
    """Mix two state dicts of one architecture; dtypes and order follow ``theta_0``.

    ``fishers`` are the diagonal Fisher information of both ends by name; what is not in them is mixed linearly.
    Raises :class:`StoreError` that names the first keys or shapes that differ.
    """
    check_same(theta_0, theta_1)
    return dict(stream(theta_0, theta_1, alpha, fishers))


def stream(
    theta_0: Tensors, theta_1: Tensors, alpha: float, fishers: Fishers | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the mixed tensors one at a time."""
    for name, start in theta_0.items():
        yield name, mix(start, theta_1[name], alpha, fisher=pair(fishers, name))


def pair(fishers: Fishers | None, name: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The Fisher information of one tensor at both ends, where there is any."""
    return (fishers[0][name], fishers[1][name]) if fishers and name in fishers[0] else None


def mix(
    start: torch.Tensor,
    end: torch.Tensor,
    alpha: float,
    out: torch.Tensor | None = None,
    fisher: tuple[torch.Tensor, torch.Tensor] | None = None,
    *,
    ordinary: bool = False,
) -> torch.Tensor:
    """Mix two tensors of one shape, into ``out`` where given (same dtype as ``start``); integers come from ``start``.

    With ``fisher``, the Fisher information of both, each weight is mixed by its own :func:`share` of the end. ``ordinary`` says
    that ``start`` :func:`is_ordinary`: the same bits, in a third of the time.
    """
    import torch

    if not start.is_floating_point() or alpha == 0:
        result = start
    elif alpha == 1:
        result = end.to(start.dtype)
    else:
        wide = start if start.dtype == torch.float64 else start.float()
        other = end.to(wide.dtype)
        room = out if out is not None and out.dtype == wide.dtype else None
        mixed = torch.sub(other, wide, out=room)
        if fisher:
            part = share(fisher[0].to(wide.dtype), fisher[1].to(wide.dtype), alpha)
            mixed = mixed.mul_(torch.where(part < 0.5, part, part - 1)).add_(torch.where(part < 0.5, wide, other))
        else:
            weight = float(torch.tensor(alpha, dtype=wide.dtype))
            base, factor = (wide, weight) if weight < 0.5 else (other, weight - 1)
            mixed = mixed.mul_(factor).add_(base)
        if not ordinary:  # arithmetic turns equal infinities into NaN and a common -0.0 into 0.0
            mixed = torch.where(_bits(wide) == _bits(other), wide, mixed, out=room)
        result = mixed.to(start.dtype)
    if out is None:
        return result.clone() if result is start or result is end else result
    return out if result is out else out.copy_(result)


def is_ordinary(tensor: torch.Tensor) -> bool:
    """Whether a tensor is of finite numbers without -0.0: arithmetic gives those back that another has in common with it."""
    import torch

    if not tensor.is_floating_point():
        return True
    wide = tensor if tensor.dtype == torch.float64 else tensor.float()
    bits = _bits(wide)
    return bool(torch.isfinite(wide).all()) and not bool((bits == torch.iinfo(bits.dtype).min).any())


def _bits(wide: torch.Tensor) -> torch.Tensor:
    """The bits of float32 or float64 as integers; those of -0.0 are the least one."""
    import torch

    return wide.view(torch.int64 if wide.dtype == torch.float64 else torch.int32)


def share(fisher_0: torch.Tensor, fisher_1: torch.Tensor, alpha: float) -> torch.Tensor:
    """How much a Fisher-weighted mix takes of the end: ``w = alpha F_1 / ((1 - alpha) F_0 + alpha F_1)``.

    ``theta_0 + w (theta_1 - theta_0)`` is ``((1 - alpha) F_0 theta_0 + alpha F_1 theta_1) / ((1 - alpha) F_0 + alpha F_1)``. Both
    are at least ``FISHER_FLOOR``; where they are equal, ``w`` is alpha.
    """
    import torch

    start, end = fisher_0.clamp(min=FISHER_FLOOR), fisher_1.clamp(min=FISHER_FLOOR)
    return torch.where(start == end, alpha, alpha * end / ((1 - alpha) * start + alpha * end))


def check_same(theta_0: Tensors, theta_1: Tensors) -> None:
    """Raise :class:`StoreError` unless both hold the same names, shapes and integer buffers."""
    import torch

    only_one = sorted(set(theta_0) ^ set(theta_1))
    if only_one:
        raise StoreError(
            f"the checkpoints are of different architectures: {len(only_one)} tensors are in one of them only, {_first(only_one)}",
            "mix checkpoints that were made from the same model (and with the same kind of head)",
        )
    shapes = [
        f"{name} {tuple(start.shape)} and {tuple(theta_1[name].shape)}"
        for name, start in theta_0.items()
        if start.shape != theta_1[name].shape
    ]
    if shapes:
        raise StoreError(
            f"the checkpoints are of different architectures: {len(shapes)} shapes differ, {_first(shapes)}",
            "mix checkpoints that were made from the same model and classes",
        )
    for name, start in theta_0.items():
        if not start.is_floating_point() and not name.endswith(COUNTERS) and not torch.equal(start, theta_1[name]):
            raise StoreError(f"the integer buffer {name} differs between the checkpoints", "it cannot be mixed")


def _first(names: list[str]) -> str:
    return f"such as {', '.join(names[:3])}"


def load_weights(store: Store, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The weights of any checkpoint: read and verified, or mixed from its parents where it is a recipe.

    Raises :class:`StoreError` for damaged files, missing parents, and missing Fisher information.
    """
    if not checkpoint.is_recipe:
        return store.read(checkpoint)
    start, end = (load_weights(store, parent) for parent in store.parents(checkpoint))
    assert checkpoint.alpha is not None
    fishers = store.read_fishers(checkpoint)
    return interpolate(start, end, checkpoint.alpha, (fishers[0], fishers[1]) if fishers else None)


class Sources(NamedTuple):
    """Files, and the alpha at which :func:`~wisepatch.weights.streaming.merge_files` mixes them."""

    start: Path
    end: Path
    alpha: float
    fishers: tuple[Path, Path] | None = None


@contextmanager
def weights_files(store: Store, checkpoint: Checkpoint, room: Path) -> Iterator[Sources]:
    """What the weights of any checkpoint are mixed from: the files of its two ends, or its own file twice; verified.

    What a recipe of recipes needs besides lies in the folder ``room`` for the time of the ``with``. Raises
    :class:`StoreError` as :func:`load_weights` does.
    """
    with ExitStack() as stack:
        if not checkpoint.is_recipe:
            own = store.weights_path(checkpoint)
            yield Sources(own, own, 0.0)
        else:
            start, end = (stack.enter_context(weights_file(store, each, room)) for each in store.parents(checkpoint))
            assert checkpoint.alpha is not None
            fishers = store.fisher_paths(checkpoint)
            yield Sources(start, end, checkpoint.alpha, (fishers[0], fishers[1]) if fishers else None)


@contextmanager
def weights_file(store: Store, checkpoint: Checkpoint, room: Path) -> Iterator[Path]:
    """A file with the weights of any checkpoint, verified: its own, or a passing one in the folder ``room``.

    Raises :class:`StoreError` as :func:`load_weights` does.
    """
    with weights_files(store, checkpoint, room) as sources, ExitStack() as stack:
        if sources.start == sources.end:
            yield sources.start
        else:
            mixed = stack.enter_context(_passing(room))
            merge_files(*sources[:3], mixed, fishers=sources.fishers, digest=False)
            yield mixed


@contextmanager
def _passing(room: Path) -> Iterator[Path]:
    """The path of a file that is gone afterwards."""
    path = room / f"{PARTIAL}{os.getpid()}-{secrets.token_hex(4)}.safetensors"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
