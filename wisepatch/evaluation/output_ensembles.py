"""Ensembles of what models answer, beside merges of their weights: rows for comparison, of which no checkpoint comes.

``output-logits`` averages logits and ``output-probabilities`` probabilities, ``sum_i w_i f_i(x)`` over the same ends with the
coefficients that a merge gives them (WiSE-FT section 5: weight-space against output-space ensembles).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wisepatch.hookspecs import MergeMethod
from wisepatch.store.checkpoints import Checkpoint, Recipe
from wisepatch.store.manifests import identify

if TYPE_CHECKING:
    import torch

WEIGHTS, OUTPUT = SPACES = ("weights", "output")
LOGITS, PROBABILITIES = METHODS = ("output-logits", "output-probabilities")
KIND = "ensemble"


def output_weights(method: MergeMethod, params: Mapping[str, Any], parents: int) -> tuple[float, ...]:
    """Return the coefficient of each parent: that of the merge where it is linear in its parents, else the same for all ends."""
    if method.from_start:
        ends = parents - 1
        alphas = (
            params.get("alphas") or [params["alpha"]] * ends if method.name == "task-arithmetic" else [1 / ends] * ends
        )
        return (1 - sum(alphas), *alphas)
    if "alpha" in params:
        return (1 - params["alpha"], params["alpha"])
    weights = params.get("weights") or [1.0] * parents
    return tuple(weight / sum(weights) for weight in weights)


def ensembles(parents: Sequence[Checkpoint], weights: Sequence[float]) -> Iterator[Checkpoint]:
    """Yield both ensembles of some checkpoints as what can be measured; nothing is stored."""
    for method in METHODS:
        recipe = Recipe(method, tuple(parent.id for parent in parents), {"weights": list(weights)})
        last = parents[-1]
        trainings = {parent.training for parent in parents[1:]}
        content = Checkpoint(
            "", method, KIND, last.model, trainings.pop() if len(trainings) == 1 else "", recipe, config=last.config
        )
        identity = identify(content)
        yield replace(content, id=identity, home=last.home.with_name(identity))


def is_ensemble(checkpoint: Checkpoint) -> bool:
    """Tell whether something that is measured is an ensemble of outputs, and no checkpoint."""
    return checkpoint.kind == KIND


@dataclass(frozen=True)
class Ensemble:
    """An ensemble as a row of a pass: which of the mixes that are computed are its members, and with which coefficients."""

    checkpoint: Checkpoint
    members: tuple[int, ...]

    @property
    def shares(self) -> dict[int, float]:
        """Return the coefficient of each member that has one."""
        assert self.checkpoint.recipe is not None
        weights = self.checkpoint.recipe.params["weights"]
        found: dict[int, float] = {}
        for member, weight in zip(self.members, weights, strict=True):
            found[member] = found.get(member, 0.0) + weight
        return {member: weight for member, weight in found.items() if weight}

    def contribution(self, logits: torch.Tensor) -> torch.Tensor:
        """Return what is averaged: logits ``(n, classes)`` themselves, or probabilities."""
        assert self.checkpoint.recipe is not None
        return logits if self.checkpoint.recipe.method == LOGITS else logits.float().softmax(1)

    def logits(self, total: torch.Tensor) -> torch.Tensor:
        """Return the average as logits: of averaged probabilities their logarithm, so that a softmax gives the average back."""
        assert self.checkpoint.recipe is not None
        return total if self.checkpoint.recipe.method == LOGITS else total.clamp_min(0).log()
