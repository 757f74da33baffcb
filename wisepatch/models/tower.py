"""An image tower made ready for evaluation, or for training: the same features, sooner.

Names and shapes of the weights stay, so that mixes are written into the tower as before. What changes for evaluation:

- open_clip's residual attention blocks project queries, keys and values at once and hand them to PyTorch's fused attention;
- the last block of a tower that is read at its class token computes that token alone: of the others only keys and values;
- QuickGELU works in place;
- attention of not too many tokens in bf16 on x86 is two batched products;
- the first layer of a vision transformer can be computed by itself: it is linear in its weights;
- convolutions see channels last;
- linear layers on an x86 CPU are oneDNN's convolutions of one pixel: sooner than MKL's products (fp32) and its own (bf16).

Features differ from those of the tower as it was by rounding alone (tested, and measured in tests/benchmarks).
"""

from __future__ import annotations

import math
import platform
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows
from torch.overrides import TorchFunctionMode

from wisepatch.errors import ModelError
from wisepatch.models.head import features

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

BATCH_SIZE, MOST = 64, 512  # images at once, at most: on a CPU, and where a GPU has room
MAPPED = 32 << 20  # bytes; what is larger comes from the system each time (glibc), its pages cleared anew
FEW_ROWS = 128  # below, a linear layer is as fast by itself
SHORT = 300  # tokens, up to which two batched products are sooner in bf16 than fused attention (measured)


def prepare(visual: torch.nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Make an image tower ready, in place, to compute in ``dtype`` (batch norm stays in fp32, for its statistics)."""
    _swap_quickgelu(visual, _QuickGELU)
    _swap_blocks(visual, _block)
    norms = [module for module in visual.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    exact = [{name: tensor.clone() for name, tensor in module.state_dict().items()} for module in norms]
    visual.to(dtype=dtype).to(memory_format=torch.channels_last)
    for module, kept in zip(norms, exact, strict=True):
        module.float().load_state_dict(kept)


class Tower:
    """A prepared image tower on a device, and what computes in it: fp32, bf16, or fp16 (by autocast, for its narrow range)."""

    def __init__(
        self, visual: Any, device: torch.device, precision: torch.dtype | None = None, *, compiled: bool = False
    ) -> None:
        """Prepare ``visual`` in place. With ``compiled`` PyTorch compiles it at the first batch, which takes a minute or so."""
        self.visual, self.device = visual.to(device).eval(), device
        self.half = precision if precision == torch.float16 else None
        self.dtype = torch.bfloat16 if precision == torch.bfloat16 else torch.float32
        self.compiled = compiled
        prepare(visual, self.dtype)
        self.stem = _swap_stem(visual)
        self._call = torch.compile(visual) if compiled else visual

    def take(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(n, 3, height, width)`` in the type and order that :meth:`features` is fastest with."""
        return images.to(self.dtype, memory_format=torch.channels_last)

    def patches(self, images: torch.Tensor) -> torch.Tensor:
        """What the ``stem``, the tower's first layer, makes of images. It is linear in its weights, and so in alpha."""
        assert self.stem is not None
        with self._context():
            patches: torch.Tensor = self.stem(images)
        return patches

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Features ``(n, dim)`` of unit length, in fp32, of images or of their :meth:`patches`."""
        with self._context():
            if not self.compiled:
                return features(self._call, images).float()
            try:
                return features(self._call, images).float()
            except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
                raise ModelError(
                    f"the image tower cannot be compiled here: {str(error).strip().partition(chr(10))[0]}",
                    "leave --compile out",
                ) from error

    def largest_batch(self, height: int, width: int, held: int = 1) -> int:
        """How many images are taken at once: as many as the GPU's free memory allows, by trying, with ``held`` batches in it.

        On a CPU as many as keep each layer's output below :data:`MAPPED`, where memory is used again: 2 to 15 % sooner than
        larger batches, with less memory (measured with ViT-B/16, ViT-L/14 and ConvNeXt base).
        """
        if self.device.type == "cpu":
            return max(1, min(BATCH_SIZE, MAPPED // self._widest(height, width)))
        from accelerate.utils import find_executable_batch_size

        def probe(batch_size: int) -> int:
            batches = [self.take(torch.zeros(batch_size, 3, height, width, device=self.device)) for _ in range(held)]
            stems = [self.patches(images) for images in batches * 2] if self.stem is not None and held > 1 else []
            self.features(batches[0])
            del batches, stems
            return batch_size

        found: int = find_executable_batch_size(probe, starting_batch_size=MOST)()
        return max(found * 3 // 4, 1) if found < MOST else found  # heads and what is held need room too

    @torch.inference_mode()
    def _widest(self, height: int, width: int) -> int:
        """Bytes of the largest output of a layer for one image."""
        sizes = [1]

        def note(_: torch.nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                sizes.append(output.nbytes)

        hooks = [module.register_forward_hook(note) for module in self.visual.modules()]
        try:
            self.visual(self.take(torch.zeros(1, 3, height, width, device=self.device)))
        finally:
            for hook in hooks:
                hook.remove()
        return max(sizes)

    def _context(self) -> AbstractContextManager[Any]:
        if self.half:
            return torch.autocast(self.device.type, self.half)
        plain = self.device.type == "cpu" and not self.compiled
        return _Convolutions() if plain and _has_onednn(self.dtype) else nullcontext()


def prepare_training(visual: torch.nn.Module) -> None:
    """Make an image tower ready to be trained, in place: the same features and gradients but for rounding, sooner.

    QuickGELU keeps its input alone for the backward pass; the last block of a tower that is read at its class token computes that
    token alone, as in evaluation: the others reach the loss through its keys and values only. In fp32 on an x86 CPU the blocks'
    linear layers are convolutions, and so are their gradients.
    """
    _swap_quickgelu(visual, TrainedQuickGELU)
    _swap_blocks(visual, _trained_block)


def _swap_blocks(visual: Any, stand_in: Callable[..., torch.Tensor]) -> None:
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    for module in visual.modules():
        if type(module) is ResidualAttentionBlock and _is_plain(module.attn):
            module.forward = partial(stand_in, module, None)
    if type(visual) is VisionTransformer and visual.attn_pool is None and visual.pool_type == "tok":
        last = visual.transformer.resblocks[-1]
        if isinstance(last.forward, partial) and not visual.output_tokens:
            last.forward = partial(stand_in, last, 1)


def _swap_stem(visual: Any) -> torch.nn.Conv2d | None:
    """The convolution that open_clip's vision transformers begin with; from now on it lets through what it has made before.

    None where two of what it makes are more numbers than an image: with patches of 32 pixels it is 3 % of the work of ViT-B; in
    ViT-B/16 and ViT-L/14 it is less than 1 % and not worth the memory.
    """
    from open_clip.transformer import VisionTransformer

    if type(visual) is not VisionTransformer:
        return None
    stem: torch.nn.Conv2d = visual.conv1
    if 2 * stem.out_channels > stem.in_channels * math.prod(stem.kernel_size):
        return None
    stem.forward = partial(_stem, stem, stem.forward)  # type: ignore[method-assign]
    return stem


def _stem(stem: torch.nn.Conv2d, forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return forward(x) if x.shape[1] == stem.in_channels else x


def _swap_quickgelu(visual: torch.nn.Module, stand_in: type[torch.nn.Module]) -> None:
    from open_clip.transformer import QuickGELU

    for module in list(visual.modules()):
        for name, child in module.named_children():
            if type(child) is QuickGELU:
                setattr(module, name, stand_in())


class TrainedQuickGELU(torch.nn.Module):
    """``x * sigmoid(1.702 * x)``, which is ``silu(1.702 * x) / 1.702``, for training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute it, elementwise."""
        found: torch.Tensor = _KeepsInput.apply(x)
        return found


class _KeepsInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return F.silu(x * 1.702, inplace=True).mul_(1 / 1.702)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        found: torch.Tensor = torch.ops.aten.silu_backward(grad, x * 1.702)
        return found


class _QuickGELU(torch.nn.Module):
    """``x * sigmoid(1.702 * x)``, in place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(x.mul_(1.702), inplace=True).mul_(1 / 1.702)


def _is_plain(attention: torch.nn.MultiheadAttention) -> bool:
    return (
        attention.batch_first and attention._qkv_same_embed_dim
        and attention.bias_k is None and not attention.add_zero_attn
    )  # fmt: skip


def _block(block: Any, first: int | None, x: torch.Tensor, attn_mask: torch.Tensor | None = None) -> torch.Tensor:
    """What open_clip's block does to ``(n, tokens, width)``; for the ``first`` tokens alone where that is given."""
    seen = block.ln_1(x)
    x = x[:, :first] + block.ls_1(_attention(block.attn, seen, first, attn_mask))
    done: torch.Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))
    return done


def _trained_block(
    block: Any, first: int | None, x: torch.Tensor, attn_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """:func:`_block` in training. In bf16 oneDNN's gradients of convolutions take longer than those of products (measured)."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    with _Convolutions() if plain and _has_onednn(x.dtype) else nullcontext():
        return _block(block, first, x, attn_mask)


def _attention(
    attention: torch.nn.MultiheadAttention, x: torch.Tensor, first: int | None, mask: torch.Tensor | None
) -> torch.Tensor:
    """Self-attention of the ``first`` tokens of ``(n, tokens, width)`` to all of them, as ``MultiheadAttention`` computes it."""
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    if first is None:
        parts = F.linear(x, weight, bias).chunk(3, -1)
    else:
        width = x.shape[-1]
        biases = (None, None) if bias is None else (bias[:width], bias[width:])
        query = F.linear(x[:, :first].contiguous(), weight[:width], biases[0])
        parts = (query, *F.linear(x, weight[width:], biases[1]).chunk(2, -1))
    query, key, value = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in parts)
    read = _attend(query, key, value, mask)
    out: torch.Tensor = attention.out_proj(read.transpose(1, 2).flatten(2))
    return out


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Attention of ``(n, heads, first, dim)`` to ``(n, heads, tokens, dim)``, fused or as two batched products, as is sooner."""
    n, heads, first, dim = query.shape
    plain = query.device.type == "cpu" and query.dtype == torch.bfloat16 and not torch.is_grad_enabled()
    if not plain or mask is not None or key.shape[2] > SHORT or not _has_onednn(query.dtype):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    query, key, value = (part.reshape(n * heads, -1, dim) for part in (query, key, value))
    scores = torch.baddbmm(query.new_empty(()), query, key.mT, beta=0, alpha=dim**-0.5)
    return torch.bmm(scores.softmax(-1), value).view(n, heads, first, dim)


def _has_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes in ``dtype`` on this x86 processor."""
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class _Convolutions(TorchFunctionMode):
    """Linear layers of many rows as convolutions of one pixel."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and not kwargs:
            x, weight, *bias = args
            rows = x.numel() // x.shape[-1]
            if rows >= FEW_ROWS and x.is_contiguous():
                found = F.conv2d(x.view(1, rows, 1, -1).permute(0, 3, 1, 2), weight[:, :, None, None], *bias)
                return found.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)
        return func(*args, **(kwargs or {}))
