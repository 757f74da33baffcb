"""Store the mixes of a start and an end: a checkpoint at each alpha, and the one that was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from wisepatch.config import ModelConfig
from wisepatch.files import check_room
from wisepatch.hookspecs import Choice
from wisepatch.store.checkpoints import Checkpoint, Recipe, Store
from wisepatch.store.recipes import weights_file, weights_size
from wisepatch.training.start import checkpoint_prefix
from wisepatch.weights.parameters import LAYERS
from wisepatch.weights.streaming import stream_weights
from wisepatch.workflows.sweep_plan import JOINT, SweepPlan


def save_mixes(
    store: Store,
    start: Checkpoint,
    end: Checkpoint,
    plan: SweepPlan,
    params: Mapping[str, Any],
    *,
    materialize: bool = False,
) -> dict[float, Checkpoint]:
    """Return the checkpoint at each alpha: an endpoint itself, or a recipe.

    With ``materialize`` the weights, the same to the bit as those of the recipe, merged from file to file in little memory.
    """
    prefix = f"{checkpoint_prefix(ModelConfig.from_json(end.model))}/{plan.patching.name}"
    method = "" if plan.method.name == "linear" else f"{plan.method.name}-"
    method = f"layers={plan.layers}-" if plan.layers else method
    mixes: dict[float, Checkpoint] = {}
    with ExitStack() as stack:
        files = (
            [stack.enter_context(weights_file(store, each, store.checkpoints)) for each in (start, end)]
            if materialize
            else []
        )
        if materialize:
            copies = sum(not _is_end(alpha, params) for alpha in plan.alphas)
            check_room(store.root, copies * max(weights_size(store, start), weights_size(store, end)))
        fishers = store.cache.fisher_paths(params["fisher"]["files"]) if materialize and "fisher" in params else None
        for alpha in plan.alphas:
            if _is_end(alpha, params):
                mixes[alpha] = end if alpha else start
                continue
            recipe = Recipe(plan.method.name, (start.id, end.id), {"alpha": alpha, **params})
            write = partial(stream_weights, plan.method, files, recipe.params, fishers=fishers) if materialize else None
            mixes[alpha] = store.save(
                write, kind="interpolated", name=f"{prefix}/{method}alpha={alpha!r}", model=end.model, training=end.training,
                recipe=recipe, config=end.config, head=end.head,
            )  # fmt: skip
    return mixes


def _is_end(alpha: float, params: Mapping[str, Any]) -> bool:
    """Tell whether a mix is an end itself, to the bit: with scales of layers, alpha 1 is not."""
    return alpha == 0 or (alpha == 1 and LAYERS not in params)


def save_patched(
    store: Store, start: Checkpoint, end: Checkpoint, plan: SweepPlan, params: Mapping[str, Any], choice: Choice
) -> Checkpoint:
    """Store the mix that was chosen, with how it was chosen."""
    return store.save(
        None, kind="patched", name=f"{checkpoint_prefix(ModelConfig.from_json(end.model))}/{plan.patching.name}/patched",
        model=end.model, training=end.training, head=end.head,
        recipe=Recipe(plan.method.name, (start.id, end.id), {"alpha": choice.alpha, **params}),
        config=end.config | chosen_by(plan),
    )  # fmt: skip


def chosen_by(plan: SweepPlan) -> dict[str, Any]:
    """Return what a patched checkpoint's settings say of its choice, and of what it is patched on where that is several tasks."""
    several = {"task": plan.patching.base_spec, "tasks": [each.base_spec for each in plan.patching.parts]}
    supported = [each.spec for each in plan.others]
    return {
        "select": str(plan.rule), "select_on": plan.select_on,
        **(several | {"supported": supported, "strategy": plan.strategy or JOINT} if plan.patching.parts else {}),
    }  # fmt: skip
