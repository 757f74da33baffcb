"""QuickGELU as one kernel of Triton, which comes with PyTorch for NVIDIA GPUs on Linux."""

# No annotations from the future: Triton reads those of a kernel.
from typing import Any

import triton
import triton.language as tl


@triton.jit
def quick_gelu_kernel(x: Any, count: Any, BLOCK: tl.constexpr) -> None:  # noqa: N803 -- Triton's way to write a constant
    """Replace the ``count`` numbers at ``x`` by ``x * sigmoid(1.702 * x)``, computed in fp32."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < count
    values = tl.load(x + offsets, mask=inside).to(tl.float32)
    tl.store(x + offsets, values * tl.sigmoid(1.702 * values), mask=inside)
