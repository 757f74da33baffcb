"""The weights of any checkpoint: read where it has a file, merged from its parents where it is a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.errors import StoreError
from wisepatch.files import partial_path, refused
from wisepatch.plugins import find_merge_method
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.weights.built_in_methods import LINEAR
from wisepatch.weights.methods import merge_weights
from wisepatch.weights.streaming import read_weights, stream_weights

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]


def load_weights(store: Store, checkpoint: Checkpoint | str) -> dict[str, torch.Tensor]:
    """Read and verify the weights of a checkpoint, or merge them from its parents where it is a recipe.

    Raises :class:`StoreError` for damaged files, missing parents, and missing Fisher information.
    """
    checkpoint = store.find(checkpoint) if isinstance(checkpoint, str) else checkpoint
    if not checkpoint.is_recipe:
        return store.read(checkpoint)
    assert checkpoint.recipe is not None
    parents = list(load_all(store, store.parents(checkpoint)))
    method = find_merge_method(checkpoint.recipe.method)
    return merge_weights(method, parents, checkpoint.recipe.params, store.read_fishers(checkpoint))


def load_all(
    store: Store, checkpoints: Sequence[Checkpoint], check: Callable[[Checkpoint, Tensors], None] | None = None
) -> Iterator[Tensors]:
    """Read the weights of several checkpoints, as :func:`load_weights` does, two at a time: verifying a file keeps one core busy.

    Those that have files are mapped, and of several recipes each is merged into a file that is mapped and has no name any more:
    memory does not grow with their number. ``check`` is called with each checkpoint and its weights, and may raise an error.
    """
    into_files = sum(each.is_recipe for each in checkpoints) > 1 and store.can_be_written()

    def load(checkpoint: Checkpoint) -> Tensors:
        if into_files and checkpoint.is_recipe:
            with weights_file(store, checkpoint, store.checkpoints) as path:
                weights = read_weights(path)[0]
        else:
            weights = load_weights(store, checkpoint)
        if check:
            check(checkpoint, weights)
        return weights

    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(load, checkpoints)


def merged_head(parents: Sequence[Checkpoint]) -> dict[str, Any] | None:
    """Return the trained head that a merge of these has: the one of all, or of the only one that has any; ``None`` without.

    Raises :class:`StoreError` where two heads are of other classes, or some parents have one and others none.
    """
    headed = [parent for parent in parents if parent.head]
    if not headed:
        return None
    first = headed[0]
    for other in headed[1:]:
        if other.head and first.head and other.head["classes"] != first.head["classes"]:
            raise StoreError(
                f"the trained heads of {first.name} ({first.id}) and {other.name} ({other.id}) are of other classes: "
                f"{first.head['task']} and {other.head['task']}",
                "merge models of one task, or models that were fine-tuned with `--head frozen`",
            )
    if len(headed) not in ((1, len(parents)) if len(parents) > 2 else (len(parents),)):
        without = next(parent for parent in parents if not parent.head)
        raise StoreError(
            f"{first.name} ({first.id}) has a trained head, and {without.name} ({without.id}) has none",
            "merge models with the same kind of head",
        )
    return first.head


def weights_size(store: Store, checkpoint: Checkpoint) -> int:
    """Return the bytes that the weights of a checkpoint take as a file, of a recipe those of the largest end."""
    sizes, waiting = {}, [checkpoint]
    while waiting:
        each = waiting.pop()
        sizes[each.id] = store.size(each)
        waiting += [parent for parent in store.parents(each) if parent.id not in sizes] if each.is_recipe else []
    return max(sizes.values())


def has_text(store: Store, checkpoint: Checkpoint) -> bool:
    """Tell whether a checkpoint has a text tower; one that was imported without has none, nor has what is mixed from it."""
    if checkpoint.is_recipe:
        return all(has_text(store, parent) for parent in store.parents(checkpoint))
    return not checkpoint.parts or "text" in checkpoint.parts


@contextmanager
def weights_writer(store: Store, checkpoint: Checkpoint, folder: Path) -> Iterator[Callable[..., str]]:
    """Yield ``write(output, *, keep=None, digest=True)``, which streams the weights of a checkpoint into a file.

    It returns the sha256 as :func:`~wisepatch.weights.streaming.stream_weights` does; the parents are verified once. Parents that
    are recipes themselves lie in ``folder`` for the time of the ``with``. Raises :class:`StoreError` as :func:`load_weights` does.
    """
    if not checkpoint.is_recipe:
        yield partial(stream_weights, LINEAR, [store.weights_path(checkpoint)], {"alpha": 0})
        return
    assert checkpoint.recipe is not None
    with ExitStack() as stack:
        files = [stack.enter_context(weights_file(store, parent, folder)) for parent in store.parents(checkpoint)]
        method, fishers = find_merge_method(checkpoint.recipe.method), store.fisher_paths(checkpoint)
        yield partial(stream_weights, method, files, checkpoint.recipe.params, fishers=fishers)


@contextmanager
def weights_file(store: Store, checkpoint: Checkpoint, folder: Path) -> Iterator[Path]:
    """Yield a file with the weights of a checkpoint, verified: its own, or a temporary one in ``folder`` for a recipe."""
    if not checkpoint.is_recipe:
        yield store.weights_path(checkpoint)
        return
    with partial_path(folder) as path, weights_writer(store, checkpoint, folder) as write:
        with refused(str(folder), StoreError, "free space there, or name another place"):
            write(path, digest=False)
        yield path
