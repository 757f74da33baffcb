"""Merge methods by name, and what they have in common: types, equal bits, integer buffers, blocks that stay in cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from wisepatch.errors import StoreError
from wisepatch.hookspecs import MergeMethod, hookimpl
from wisepatch.weights.built_in_methods import ALONG, BUILT_IN, FISHER, LINEAR
from wisepatch.weights.depth import with_layer

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

SCRATCH_ELEMENTS = 1 << 17  # numbers merged at a time on a CPU: parents and result stay in a core's cache
HEAD = "classifier."  # begins the names of a trained head
COUNTERS = "num_batches_tracked"  # of batch normalisation: they differ by training and do not matter


@hookimpl
def register_merge_methods() -> list[MergeMethod]:
    """Return the built-in merge methods."""
    return list(BUILT_IN)


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
    merge = Merge(method, params, tuple(fishers or ()), survey(method, parents, params))
    tensors = {name: [parent[name] for parent in parents] for name in parents[0]}
    return {name: merge_tensor(method, each, merge.settings(name, each[0].shape)) for name, each in tensors.items()}


@dataclass(frozen=True)
class Merge:
    """A merge with all that it needs beside the tensors themselves.

    ``information`` holds for each parent tensors by name: its Fisher information, or the Gram matrices of its layers' inputs.
    ``survey`` is what :func:`survey` found of the whole model.
    """

    method: MergeMethod
    params: Mapping[str, Any]
    information: Sequence[Tensors] = ()
    survey: Any = None

    def settings(self, name: str, shape: torch.Size) -> Mapping[str, Any]:
        """Return the parameters for one tensor: with its name, survey, information, and the scale of its layer."""
        method, params = self.method, self.params
        if method.parameters:
            params = with_layer({**params, "tensor": name}, name, of_vectors=method.of_vectors)
        if method.survey:
            params = {**params, "survey": self.survey}
        if method.needs_grams:
            return (
                {**params, "grams": [each[name] for each in self.information]}
                if _all_have(self.information, name)
                else params
            )
        return with_fishers(params, self.information, name, shape)


def survey(
    method: MergeMethod, parents: Sequence[Tensors], params: Mapping[str, Any], names: Sequence[str] | None = None
) -> Any:
    """Make the first pass of a merge over the whole model, where its method has one; parents of one architecture.

    ``names`` are those of all tensors, where the parents hold only some of them.
    """
    if method.survey is None:
        return None

    def vectors() -> Iterator[tuple[str, list[torch.Tensor]]]:
        for name in parents[0]:
            tensors = [parent[name].to(parents[0][name].device) for parent in parents]
            for block, _ in blocks(method, tensors, {}) if _is_moved(tensors) else ():
                yield name, _vectors(_widened(block)[1])

    return method.survey(list(parents[0]) if names is None else names, vectors, params)


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

    result = parents[0]
    if result.is_floating_point():
        narrow, wide = _widened(parents)
        scratch = out if out is not None and out.dtype == wide[0].dtype else None
        merged = (
            _add_vector(method, wide, params, scratch) if method.of_vectors else method.merge(wide, params, scratch)
        )
        returned = next((own for own, parent in zip(narrow, wide, strict=True) if parent is merged), None)
        result = merged.to(narrow[0].dtype) if returned is None else returned
        # Arithmetic makes NaN of infinities that the parents have in common. The sum tells; on a GPU it would be waited for.
        if returned is None and (merged.device.type != "cpu" or merged.sum().isnan()):
            result = torch.where(torch.isnan(merged) & _same_bits(narrow), narrow[0], result)
    return result if out is None or result is out else out.copy_(result)


def _widened(parents: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return floating-point tensors in the type of their merge, and in the type that it is computed in."""
    import torch

    dtype = merged_dtype(parents)
    narrow = [parent.to(dtype) for parent in parents]
    return narrow, [parent.to(torch.promote_types(dtype, torch.float32)) for parent in narrow]


def _vectors(wide: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the task vectors of all ends; what all have in common, infinities too, is 0."""
    start, *ends = wide
    vectors = [end - start for end in ends]
    if any(vector.sum().isnan() for vector in vectors):
        same = _same_bits(wide)
        vectors = [vector.masked_fill(same, 0.0) for vector in vectors]
    return vectors


def merged_vector(
    method: MergeMethod, parents: Sequence[torch.Tensor], params: Mapping[str, Any]
) -> torch.Tensor | None:
    """Return the task vector of a whole tensor that a method of task vectors merges, in fp32 or fp64; ``None`` where nothing moved.

    :data:`ALONG` with this and ``params["scale"]`` is the merge to the bit.
    """
    import torch

    if not _is_moved(parents):
        return None
    with torch.no_grad():
        pieces = []
        for tensors, settings in blocks(method, parents, params):
            _, wide = _widened(tensors)
            moved = _merged_vector(method, wide, settings)
            pieces.append((torch.zeros_like(wide[0]) if moved is None else moved).flatten())
        return torch.cat(pieces).view(parents[0].shape)


def add_vector(
    parents: Sequence[torch.Tensor], vector: torch.Tensor, scale: float, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Make the merge of :func:`merged_vector` at a scale, into ``out`` where given: to the bit that of :func:`merge_tensor`."""
    narrow = parents[0].to(merged_dtype(parents))
    if scale == 0:
        return narrow.clone() if out is None else out.copy_(narrow)
    if narrow.dtype == vector.dtype:
        return merge_tensor(ALONG, (narrow, vector), {"scale": scale}, out)
    moved = merge_tensor(ALONG, (narrow.to(vector.dtype), vector), {"scale": scale}).to(narrow.dtype)
    return moved if out is None else out.copy_(moved)


def _is_moved(parents: Sequence[torch.Tensor]) -> bool:
    """Tell whether a tensor is one of floating-point numbers, and not the same in all parents."""
    import torch

    start, *ends = parents
    return start.is_floating_point() and not all(torch.equal(start, end) for end in ends)


def _merged_vector(method: MergeMethod, wide: Sequence[torch.Tensor], params: Mapping[str, Any]) -> torch.Tensor | None:
    return method.merge(_vectors(wide), params, None) if _is_moved(wide) else None


def _add_vector(
    method: MergeMethod, wide: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None
) -> torch.Tensor:
    scale = params.get("scale", 1)
    vector = _merged_vector(method, wide, params) if scale else None
    return wide[0] if vector is None else ALONG.merge((wide[0], vector), {"scale": scale}, out)


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
    if not fishers or not _all_have(fishers, name):
        return params
    if any(each[name].shape != shape for each in fishers):
        raise StoreError(f"the Fisher information of {name} is not of its shape", "measure it for the same model")
    return {**params, "fishers": [each[name] for each in fishers]}


def _all_have(information: Sequence[Tensors], name: str) -> bool:
    return bool(information) and all(name in each for each in information)


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
        if not may_differ and not all(torch.equal(tensor, each.to(tensor.device)) for each in tensors):
            raise StoreError(f"the integer buffer {name} differs between the {source}", "it cannot be mixed")
