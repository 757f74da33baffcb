"""What PyTorch's own kernels are slow at in an image tower on a GPU, computed otherwise: the same numbers but for rounding.

Measured on an H100 in bf16 (tests/benchmarks): cuDNN takes a fifth of ViT-B/32's time for the convolution that embeds the
patches, as it pads three channels to eight; QuickGELU reads and writes the widest layer three times, a fifth of ViT-B/32's time
and a quarter of ViT-L/14's.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows

FEW_CHANNELS = 4  # cuDNN pads fewer than eight
BLOCK = 1024  # numbers that a program of the kernel computes


def use_products_for_patches(visual: torch.nn.Module) -> None:
    """Let the convolutions that cut an image into patches be matrix products on a GPU in half precision; in place."""
    for module in visual.modules():
        if type(module) is torch.nn.Conv2d and _cuts_patches(module):
            module.forward = partial(_embed, module)  # type: ignore[method-assign]


def _cuts_patches(conv: torch.nn.Conv2d) -> bool:
    plain = conv.padding in ((0, 0), "valid") and conv.dilation == (1, 1) and conv.groups == 1
    return plain and conv.kernel_size == conv.stride and conv.in_channels <= FEW_CHANNELS


def _embed(conv: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    half = images.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled("cuda")
    if images.is_cuda and half:
        return embed_patches(conv, images)
    output: torch.Tensor = conv._conv_forward(images, conv.weight, conv.bias)
    return output


def embed_patches(conv: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    """Compute ``conv`` on images ``(n, channels, height, width)``, as a product with each patch laid out as one row."""
    high, wide = conv.kernel_size
    rows, columns = images.shape[-2] // high, images.shape[-1] // wide
    pixels = images[..., : rows * high, : columns * wide].permute(
        0, 2, 3, 1
    )  # channels last, as the images lie in memory
    patches = pixels.unflatten(2, (columns, wide)).unflatten(1, (rows, high)).transpose(2, 3)
    weight = conv.weight.permute(0, 2, 3, 1).flatten(1)
    return F.linear(patches.flatten(3), weight, conv.bias).permute(0, 3, 1, 2)


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    """Compute ``x * sigmoid(1.702 * x)`` in place: in one kernel where Triton can compile it, else in three."""
    kernel = _quick_gelu_kernel(x.device, x.dtype) if x.is_cuda and x.is_contiguous() else None
    if kernel is None:
        return F.silu(x.mul_(1.702), inplace=True).mul_(1 / 1.702)
    kernel[(-(-x.numel() // BLOCK),)](x, x.numel(), BLOCK)
    return x


@cache
def _quick_gelu_kernel(device: torch.device, dtype: torch.dtype) -> Any:
    """Return the kernel, tried on this device; None where it cannot be compiled (no Triton, no C compiler, an old GPU)."""
    try:
        from wisepatch.models.quick_gelu_kernel import quick_gelu_kernel

        quick_gelu_kernel[(1,)](torch.zeros(BLOCK, device=device, dtype=dtype), BLOCK, BLOCK)
    except Exception:  # noqa: BLE001 -- whatever it is, PyTorch's own kernels do the same
        return None
    return quick_gelu_kernel
