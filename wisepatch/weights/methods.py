"""Merge methods by name, and what they have in common: types, equal bits, integer buffers, blocks that stay in cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from wisepatch.errors import StoreError
from wisepatch.hookspecs import MergeMethod, Parameter, hookimpl
from wisepatch.weights.interpolation import fisher, linear
from wisepatch.weights.task_vectors import task_arithmetic

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

LINEAR = MergeMethod("linear", linear, elementwise=True)
FISHER = MergeMethod("fisher", fisher, needs_fisher=True, elementwise=True)
TASK_ARITHMETIC = MergeMethod(
    "task-arithmetic", task_arithmetic, elementwise=True,
    parameters=(
        Parameter("alpha", help="scale of the sum of all task vectors"),
        Parameter("alphas", kind="numbers", help="a scale for each end, in place of alpha"),
    ),
)  # fmt: skip

SCRATCH_ELEMENTS = 1 << 17  # numbers merged at a time on a CPU: parents and result stay in a core's cache
HEAD = "classifier."  # begins the names of a trained head
COUNTERS = "num_batches_tracked"  # of batch normalisation: they differ by training and do not matter


@hookimpl
def register_merge_methods() -> list[MergeMethod]:
    """Return the built-in merge methods."""
    return [LINEAR, FISHER, TASK_ARITHMETIC]


def interpolate(
    theta_0: Tensors, theta_1: Tensors, alpha: float, fishers: tuple[Tensors, Tensors] | None = None
) -> dict[str, torch.Tensor]:
    """Mix two state dicts, ``(1 - alpha) * theta_0 + alpha * theta_1``; see :func:`merge_weights`.

    ``fishers`` are the diagonal Fisher information of both ends by name; what is not in them is mixed linearly.
    """
    return merge_weights(FISHER if fishers else LINEAR, (theta_0, theta_1), {"alpha": alpha}, fishers)


def merge_weights(
    method: MergeMethod, parents: Sequence[Tensors], params: Mapping[str, Any], fishers: Sequence[Tensors] | None = None
) -> dict[str, torch.Tensor]:
    """Merge state dicts of one architecture into a new one, in the order of the first; see :func:`merge_tensor`.

    ``fishers`` are the Fisher information of each parent by name. Raises :class:`StoreError` as :func:`check_same` does.
    """
    parents = with_one_head(parents)
    check_same(*parents)
    tensors = {name: [parent[name] for parent in parents] for name in parents[0]}
    return {
        name: merge_tensor(method, each, with_fishers(params, fishers, name, each[0].shape))
        for name, each in tensors.items()
    }


def merge_tensor(
    method: MergeMethod, parents: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None
) -> torch.Tensor:
    """Merge tensors of one shape into a new one, or into ``out`` (of any type); integers come from the first parent.

    Floating-point tensors are merged in fp32 (fp64 where one is fp64) and rounded once to the widest of their types (fp32 for fp16
    with bf16). Infinities and NaN that all parents have in common stay; where the method returns one of its arguments, the merge is
    that parent bit for bit.
    """
    import torch

    if out is None:
        out = torch.empty(parents[0].shape, dtype=merged_dtype(parents), device=parents[0].device)
    if not out.is_contiguous():
        return out.copy_(merge_tensor(method, parents, params))
    with torch.no_grad():
        rest = out.view(-1)
        for tensors, settings in blocks(method, parents, params):
            block, rest = rest[: tensors[0].numel()], rest[tensors[0].numel() :]
            merge_block(method, tensors, settings, block.view(tensors[0].shape))
    return out


def blocks(
    method: MergeMethod, parents: Sequence[torch.Tensor], params: Mapping[str, Any]
) -> Iterator[tuple[list[torch.Tensor], Mapping[str, Any]]]:
    """Yield the parents, and parameters with their Fisher information, in flat blocks of ``SCRATCH_ELEMENTS``.

    On a GPU, and for methods that are not elementwise, the one block is the tensor in its shape.
    """
    first = parents[0]
    if first.device.type != "cpu" or (first.is_floating_point() and not method.elementwise):
        yield list(parents), params
        return
    flat = [parent.reshape(-1) for parent in parents]
    fishers = [information.reshape(-1) for information in params.get("fishers", ())]
    for begin in range(0, first.numel(), SCRATCH_ELEMENTS):
        block = slice(begin, begin + SCRATCH_ELEMENTS)
        settings = {**params, "fishers": [information[block] for information in fishers]} if fishers else params
        yield [parent[block] for parent in flat], settings


def merge_block(
    method: MergeMethod, parents: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None
) -> torch.Tensor:
    """Merge one block, as :func:`merge_tensor` says; without ``out`` the result may share memory with a parent."""
    import torch

    result, dtype = parents[0], merged_dtype(parents)
    if result.is_floating_point():
        narrow = [parent.to(dtype) for parent in parents]
        wide = [parent.to(torch.promote_types(dtype, torch.float32)) for parent in narrow]
        scratch = out if out is not None and out.dtype == wide[0].dtype else None
        merged = method.merge(wide, params, scratch)
        returned = next((own for own, parent in zip(narrow, wide, strict=True) if parent is merged), None)
        result = merged.to(dtype) if returned is None else returned
        # Arithmetic makes NaN of infinities that the parents have in common. The sum tells; on a GPU it would be waited for.
        if returned is None and (merged.device.type != "cpu" or merged.sum().isnan()):
            result = torch.where(torch.isnan(merged) & _same_bits(narrow), narrow[0], result)
    return result if out is None or result is out else out.copy_(result)


def merged_dtype(parents: Sequence[torch.Tensor]) -> torch.dtype:
    """Return the widest floating-point type of the parents, or the type of the first one's integers."""
    import torch

    types = [parent.dtype for parent in parents]
    return reduce(torch.promote_types, types) if types[0].is_floating_point else types[0]


def _same_bits(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    import torch

    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensors[0].itemsize]
    bits = [tensor.view(integers) for tensor in tensors]
    return reduce(torch.logical_and, (each == bits[0] for each in bits))


def with_fishers(
    params: Mapping[str, Any], fishers: Sequence[Tensors] | None, name: str, shape: torch.Size
) -> Mapping[str, Any]:
    """Add to ``params`` the Fisher information of a tensor, where all have some; StoreError where it is of another shape."""
    if not fishers or not all(name in each for each in fishers):
        return params
    if any(each[name].shape != shape for each in fishers):
        raise StoreError(f"the Fisher information of {name} is not of its shape", "measure it for the same model")
    return {**params, "fishers": [each[name] for each in fishers]}


def with_one_head(parents: Sequence[Tensors]) -> Sequence[Tensors]:
    """Give the trained head of one of three parents or more to all of them: there is nothing to merge it with."""
    headed = [parent for parent in parents if any(name.startswith(HEAD) for name in parent)]
    if len(parents) < 3 or len(headed) != 1:
        return parents
    head = {name: tensor for name, tensor in headed[0].items() if name.startswith(HEAD)}
    return [parent if parent is headed[0] else {**parent, **head} for parent in parents]


def check_same(*parents: Tensors, source: str = "checkpoints") -> None:
    """Raise :class:`StoreError` unless all hold the same names, shapes, kinds of types, and integer buffers.

    The first three offenders are named. Counters of batch normalisation may differ.
    """
    import torch

    first, *others = parents
    same_model = f"mix {source} that were made from the same model"

    def refuse(names: Sequence[str], difference: str, hint: str) -> None:
        if names:
            reason = f"{len(names)} {difference}, such as {', '.join(names[:3])}"
            raise StoreError(f"the {source} are of different architectures: {reason}", f"{same_model}{hint}")

    missing = sorted(set().union(*parents) - set(first).intersection(*others))
    some = "one" if len(parents) == 2 else "some"
    refuse(missing, f"tensors are in {some} of them only", " (and with the same kind of head)")
    shapes = {name: [tuple(parent[name].shape) for parent in parents] for name in first}
    wrong = [f"{name} {' and '.join(map(str, each))}" for name, each in shapes.items() if len(set(each)) > 1]
    refuse(wrong, "shapes differ", " and classes")
    for name, tensor in first.items():
        tensors = [parent[name] for parent in others]
        types = {each.dtype for each in (tensor, *tensors)}
        if len(types) > 1 and not all(each.is_floating_point for each in types):
            names = ", ".join(sorted(map(str, types)))
            raise StoreError(f"{name} is of different types in the {source}: {names}", same_model)
        may_differ = tensor.is_floating_point() or name.endswith(COUNTERS)
        if not may_differ and not all(torch.equal(tensor, each) for each in tensors):
            raise StoreError(f"the integer buffer {name} differs between the {source}", "it cannot be mixed")
