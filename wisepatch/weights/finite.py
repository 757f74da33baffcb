"""Find tensors that hold NaN or infinities: whatever is computed with them is measured without meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MASK = "mask"  # ends the names of attention masks, which are infinite by design


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of floating-point tensors with NaN, or with infinities where they are no attention mask."""
    import torch

    def is_broken(name: str, tensor: torch.Tensor) -> bool:
        return bool(tensor.isnan().any() if name.endswith(MASK) else not tensor.isfinite().all())

    # The sum tells in a fifth of the time.
    suspects = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not tensor.sum(dtype=torch.float32).isfinite()
    ]
    return [name for name in suspects if is_broken(name, tensors[name])]
