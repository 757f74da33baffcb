"""Merges that take long are made once for all scales, and kept in the cache of the store for the next evaluation.

Kept is the merged task vector of the tensors that evaluation reads (image tower and trained head), in fp32, for methods of task
vectors; a candidate with another scale, or other scales of layers, costs what a mix of two costs then. Of other methods
the merged tensors themselves are kept.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from wisepatch.files import set_aside
from wisepatch.hookspecs import MergeMethod
from wisepatch.process_group import made_together
from wisepatch.progress import Progress
from wisepatch.store.cache import MERGED_ENTRIES, versions
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.recipes import load_all
from wisepatch.weights.methods import Merge, merge_tensor, merged_vector, survey, with_one_head
from wisepatch.weights.parameters import LAYERS, described

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

READ = ("visual.", "classifier.")  # begin the names of what evaluation reads of an end
OF_SCALES = ("scale", LAYERS)


def kept_merge(
    store: Store,
    recipe: Checkpoint,
    parents: Sequence[Checkpoint],
    method: MergeMethod,
    device: torch.device,
    progress: Progress | None = None,
) -> Tensors:
    """Return what a costly merge gives, by name: task vectors of tensors that moved, or merged tensors; from the cache or made.

    One tensor of all ends is in the memory of ``device`` at a time. Raises the errors of :func:`load_weights`.
    """
    assert recipe.recipe is not None
    params = unscaled(method, recipe.recipe.params)
    about: list[Any] = [[parent.id for parent in parents], method.name, params, versions("torch")]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]

    def make() -> dict[str, torch.Tensor]:
        begun = time.monotonic()
        tensors = merge_read_tensors(store, recipe, parents, method, device)
        if progress:
            settings = described(params)
            words = f"{method.name}{f' ({settings})' if settings else ''} of {len(parents)} checkpoints"
            progress.note(f"{words} merged in {time.monotonic() - begun:.1f} s, once for all scales")
        return tensors

    about_entry = {"method": method.name, "parents": [parent.name for parent in parents], "params": params}
    find = partial(
        store.cache.tensors, MERGED_ENTRIES, digest, note=progress.note if progress else None, about=about_entry
    )
    return made_together(lambda announced: find(announced), make)


def unscaled(method: MergeMethod, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters without the scales, for methods whose merge is the start plus a scale times a task vector."""
    return {name: value for name, value in params.items() if not (method.of_vectors and name in OF_SCALES)}


def merge_read_tensors(
    store: Store, recipe: Checkpoint, parents: Sequence[Checkpoint], method: MergeMethod, device: torch.device
) -> dict[str, torch.Tensor]:
    """Merge the tensors that evaluation reads, with the first pass over the whole model where the method has one."""
    assert recipe.recipe is not None
    weights = with_one_head(list(load_all(store, parents)))
    params = unscaled(method, recipe.recipe.params)
    merge = Merge(method, params, store.read_fishers(recipe), survey(method, weights, params))
    merged: dict[str, torch.Tensor] = {}
    for name in (name for name in weights[0] if name.startswith(READ)):
        tensors = [each[name].to(device) for each in weights]
        settings = merge.settings(name, tensors[0].shape)
        if not method.of_vectors:
            merged |= set_aside({name: merge_tensor(method, tensors, settings).cpu()}, store.checkpoints)
        elif (vector := merged_vector(method, tensors, settings)) is not None:
            merged |= set_aside({name: vector.cpu()}, store.checkpoints)
    return merged
