"""Weights in, weights out: ``theta = (1 - alpha) * theta_0 + alpha * theta_1`` (WiSE-FT eq. 1, PAINT section 2).

State dicts only; knows no model. The mix is computed as ``lerp`` in fp32, which gives both ends bit for bit and leaves
equal weights as they are at any alpha.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wisepatch.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from wisepatch.store import Checkpoint, Store

    Tensors = Mapping[str, torch.Tensor]

COUNTERS = "num_batches_tracked"  # batch normalisation's, which differ by training and do not matter


def interpolate(theta_0: Tensors, theta_1: Tensors, alpha: float) -> dict[str, torch.Tensor]:
    """Mix two state dicts of one architecture; dtypes and order follow ``theta_0``.

    Raises :class:`StoreError` that names the first keys or shapes that differ.
    """
    check_same(theta_0, theta_1)
    return dict(stream(theta_0, theta_1, alpha))


def stream(theta_0: Tensors, theta_1: Tensors, alpha: float) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the mixed tensors one at a time."""
    for name, start in theta_0.items():
        yield name, mix(start, theta_1[name], alpha)


def mix(start: torch.Tensor, end: torch.Tensor, alpha: float, out: torch.Tensor | None = None) -> torch.Tensor:
    """Mix two tensors of one shape, into ``out`` where given (same dtype as ``start``); integers come from ``start``."""
    import torch

    if not start.is_floating_point() or alpha == 0:
        result = start
    elif alpha == 1:
        result = end.to(start.dtype)
    else:
        wide = start if start.dtype == torch.float64 else start.float()
        other = end.to(wide.dtype)
        mixed = torch.lerp(wide, other, alpha, out=out if out is not None and out.dtype == wide.dtype else None)
        # lerp turns equal infinities into NaN and a common -0.0 into 0.0
        result = torch.where(wide == other, wide, mixed).to(start.dtype)
    return out.copy_(result) if out is not None else result.clone()


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

    Raises :class:`StoreError` for damaged files and missing parents.
    """
    if not checkpoint.is_recipe:
        return store.read(checkpoint)
    start, end = (load_weights(store, parent) for parent in store.parents(checkpoint))
    assert checkpoint.alpha is not None
    return interpolate(start, end, checkpoint.alpha)
