"""An image tower made ready for evaluation, or for training: the same features, sooner.

Names and shapes of the weights stay, so that mixes are written into the tower as before. What changes for evaluation:

- open_clip's residual attention blocks project queries, keys and values at once and hand them to PyTorch's fused attention;
- the last block of a tower that is read at its class token computes that token alone: of the others only keys and values;
- QuickGELU works in place;
- convolutions see channels last;
- linear layers on an x86 CPU are oneDNN's convolutions of one pixel: sooner than MKL's products (fp32) and its own (bf16);
- on a GPU, in half precision, patches are embedded by a product (:mod:`wisepatch.models.patch_embedding`).

Features differ from those of the tower as it was by rounding alone (tested, and measured in tests/benchmarks).
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows
from torch.overrides import TorchFunctionMode

from wisepatch.errors import ModelError
from wisepatch.models.classifier import features
from wisepatch.models.patch_embedding import use_products_for_patches

BATCH_SIZE, MAX_IMAGES_ON_GPU = 64, 512  # images at once, at most: on a CPU, and where a GPU has room
MAX_LAYER_BYTES = 32 << 20  # glibc asks the system for what is larger each time, and its pages are cleared anew
MIN_CONVOLVED_ROWS = 128  # below, a linear layer is as fast by itself


def prepare(visual: torch.nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Make an image tower ready, in place, to compute in ``dtype`` (batch norm stays in fp32, for its statistics)."""
    from open_clip.transformer import QuickGELU

    _swap_blocks(visual, _block)
    use_products_for_patches(visual)
    for module in visual.modules():
        if type(module) is QuickGELU:
            module.forward = _quick_gelu
        if not isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module._apply(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, recurse=False)
    visual.to(memory_format=torch.channels_last)


class Tower:
    """A prepared image tower on a device, in fp32, bf16, or fp16 (by autocast, for its narrow range)."""

    def __init__(
        self, visual: Any, device: torch.device, precision: torch.dtype | None = None, *, compiled: bool = False
    ) -> None:
        """Prepare ``visual`` in place. With ``compiled`` PyTorch compiles it at the first batch, which takes a minute or so."""
        self.visual, self.device = visual.to(device).eval(), device
        self.half = precision if precision == torch.float16 else None
        self.dtype = torch.bfloat16 if precision == torch.bfloat16 else torch.float32
        self.compiled = compiled
        prepare(visual, self.dtype)
        self._call = torch.compile(visual) if compiled else visual

    def take(self, images: torch.Tensor) -> torch.Tensor:
        """Bring images ``(n, 3, height, width)`` into the type and memory order that :meth:`features` is fastest with."""
        return images.to(self.dtype, memory_format=torch.channels_last)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Compute features ``(n, dim)`` of unit length, in fp32."""
        failures = (
            torch._dynamo.exc.TorchDynamoException if self.compiled else ()
        )  # loads the compiler, which takes seconds
        try:
            with self._context():
                return features(self._call, images).float()
        except failures as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"the image tower cannot be compiled here: {reason}", "leave --compile out") from error

    def largest_batch(self, height: int, width: int, held: int = 1) -> int:
        """Choose how many images are computed at once, with ``held`` batches in memory.

        On a GPU as many as its free memory allows, by trying. On a CPU as many as keep each layer's output below
        :data:`MAX_LAYER_BYTES`, where memory is used again: 2 to 15 % sooner than larger batches, with less memory (measured
        with ViT-B/16, ViT-L/14 and ConvNeXt base).
        """
        if self.device.type == "cpu":
            return max(1, min(BATCH_SIZE, MAX_LAYER_BYTES // self._largest_output_bytes(height, width)))
        from accelerate.utils import find_executable_batch_size

        def probe(batch_size: int) -> int:
            batches = [self.take(torch.zeros(batch_size, 3, height, width, device=self.device)) for _ in range(held)]
            self.features(batches[0])
            return batch_size

        size: int = find_executable_batch_size(probe, starting_batch_size=MAX_IMAGES_ON_GPU)()
        return max(size * 3 // 4, 1) if size < MAX_IMAGES_ON_GPU else size  # heads and logits need room too

    @torch.inference_mode()
    def _largest_output_bytes(self, height: int, width: int) -> int:
        """Measure the bytes of the largest output of a layer for one image."""
        sizes = [1]

        def note(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                sizes.append(output.nbytes)

        with ExitStack() as stack:
            for module in self.visual.modules():
                stack.callback(module.register_forward_hook(note).remove)
            self.visual(self.take(torch.zeros(1, 3, height, width, device=self.device)))
        return max(sizes)

    def _context(self) -> AbstractContextManager[Any]:
        if self.half:
            return torch.autocast(self.device.type, self.half)
        return nullcontext() if self.compiled else _convolutions(self.device, self.dtype)


def prepare_training(visual: torch.nn.Module) -> None:
    """Make an image tower ready to be trained, in place: the same features and gradients but for rounding, sooner.

    The last block of a tower that is read at its class token computes that token alone, as in evaluation: the others reach the
    loss through its keys and values only. In fp32 on an x86 CPU the blocks' linear layers are convolutions, and so are their
    gradients.
    """
    _swap_blocks(visual, _trained_block)
    use_products_for_patches(visual)


def prepare_reading(visual: Any) -> None:
    """Let the blocks of an image tower call each linear layer, in place and for all tokens, so that inputs can be read."""
    from open_clip.transformer import ResidualAttentionBlock

    for module in visual.modules():
        if type(module) is ResidualAttentionBlock and _is_plain(module.attn):
            module.forward = partial(_block, module, None)


def _swap_blocks(visual: Any, stand_in: Callable[..., torch.Tensor]) -> None:
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    blocks = [m for m in visual.modules() if type(m) is ResidualAttentionBlock and _is_plain(m.attn)]
    for block in blocks:
        block.forward = partial(stand_in, block, None)
    reads_class_token = type(visual) is VisionTransformer and visual.attn_pool is None and visual.pool_type == "tok"
    if reads_class_token and not visual.output_tokens and visual.transformer.resblocks[-1] in blocks:
        blocks[-1].forward = partial(stand_in, blocks[-1], 1)


def _quick_gelu(x: torch.Tensor) -> torch.Tensor:
    """Compute ``x * sigmoid(1.702 * x)`` in place."""
    return F.silu(x.mul_(1.702), inplace=True).mul_(1 / 1.702)


def _is_plain(attention: torch.nn.MultiheadAttention) -> bool:
    added_keys = attention.bias_k is not None or attention.add_zero_attn
    return attention.batch_first and attention._qkv_same_embed_dim and not added_keys


def _block(block: Any, first: int | None, x: torch.Tensor, attn_mask: torch.Tensor | None = None) -> torch.Tensor:
    """Compute open_clip's block on ``(n, tokens, width)``, for the ``first`` tokens alone where that is given."""
    x = x[:, :first] + block.ls_1(_attention(block.attn, block.ln_1(x), first, attn_mask))
    output: torch.Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))
    return output


def _trained_block(
    block: Any, first: int | None, x: torch.Tensor, attn_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute :func:`_block` in training, in fp32 with convolutions: in bf16 their gradients take longer (measured)."""
    exact = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    with _convolutions(x.device, x.dtype) if exact else nullcontext():
        return _block(block, first, x, attn_mask)


def _attention(
    attention: torch.nn.MultiheadAttention, x: torch.Tensor, first: int | None, mask: torch.Tensor | None
) -> torch.Tensor:
    """Compute the self-attention of ``MultiheadAttention``: of the ``first`` tokens of ``(n, tokens, width)`` to all of them."""
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    if first is None:
        parts = F.linear(x, weight, bias).chunk(3, -1)
    else:
        width = x.shape[-1]
        biases = (None, None) if bias is None else (bias[:width], bias[width:])
        query = F.linear(x[:, :first].contiguous(), weight[:width], biases[0])
        parts = (query, *F.linear(x, weight[width:], biases[1]).chunk(2, -1))
    query, key, value = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in parts)
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    projected: torch.Tensor = attention.out_proj(attended.transpose(1, 2).flatten(2))
    return projected


def _convolutions(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Compute linear layers as convolutions where oneDNN computes in ``dtype`` on an x86 processor."""
    x86 = device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64")
    onednn = x86 and torch.backends.mkldnn.is_available()
    supported = onednn and (dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return _Convolutions() if supported else nullcontext()


class _Convolutions(TorchFunctionMode):
    """Compute linear layers of many rows as convolutions of one pixel."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and not kwargs:
            x, weight, *bias = args
            rows = x.numel() // x.shape[-1]
            if rows >= MIN_CONVOLVED_ROWS and x.is_contiguous():
                output = F.conv2d(x.view(1, rows, 1, -1).permute(0, 3, 1, 2), weight[:, :, None, None], *bias)
                return output.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)
        return func(*args, **(kwargs or {}))
