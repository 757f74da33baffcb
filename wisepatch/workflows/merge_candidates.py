"""The candidates of a merge: the start, the ends, a merge for each combination of parameters, ensembles of outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wisepatch.config import ModelConfig
from wisepatch.errors import UsageError
from wisepatch.evaluation.output_ensembles import WEIGHTS, ensembles, output_weights
from wisepatch.files import check_room, in_utf8
from wisepatch.hookspecs import MergeMethod
from wisepatch.store.checkpoints import Checkpoint, Recipe, Store
from wisepatch.store.recipes import merged_head, weights_size, weights_writer
from wisepatch.training.start import checkpoint_prefix
from wisepatch.weights.depth import read_layers
from wisepatch.weights.parameters import LAYERS, described, label, params_problem, read_params
from wisepatch.workflows.merge_parents import Parents
from wisepatch.workflows.tasks_of_run import patched_words

START, END, MERGED, ENSEMBLE = "start", "end", "merged", "ensemble"


@dataclass(frozen=True)
class Candidate:
    """A model that is measured: the start or an end, a merge with its parameters, or an ensemble of outputs (no checkpoint)."""

    number: int | None
    kind: str
    label: str
    checkpoint: Checkpoint
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def alpha(self) -> float | None:
        """Return the alpha of its rows: that of the recipe of a merge, 0 for the start; ends and ensembles have none."""
        if self.kind == MERGED and self.params.get("alpha") is not None:
            return float(self.params["alpha"])
        return 0.0 if self.kind == START else None


def candidate_params(
    method: MergeMethod, parents: Parents, words: Sequence[str], layers: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the parameters of each candidate; averages have equal weights unless told otherwise."""
    grid = read_params(method, words, len(parents.ends))
    for params in grid:
        if (
            method.parameters
            and {"alpha", "weights"} <= {each.name for each in method.parameters}
            and not ({"alpha", "weights"} & set(params))
        ):
            params["weights"] = [1.0] * len(parents.ends)
    if layers:
        if not (method.from_start or "alpha" in grid[0]):
            raise UsageError(
                f"{method.name} adds nothing to a start, and --layers scales what is added",
                "use a method of task vectors, such as task-arithmetic",
            )
        scales = read_layers(layers, parents.names)
        grid = [params | {LAYERS: scales} for params in grid]
    for params in grid if method.parameters else ():
        if problem := params_problem(method, len(parents.all), params):
            raise UsageError(f"this would be a merge {problem}", "`wisepatch merge --help` shows the methods")
    return grid


@dataclass(frozen=True)
class Candidates:
    """Make the checkpoints of a merge's candidates; the merge that is stored by ``name`` as weights with ``materialize``.

    Without a ``name`` it is called after its tasks and how it was made, which is ``made_by`` where that is more than the method.
    """

    store: Store
    method: MergeMethod
    parents: Parents
    name: str
    materialize: bool = False
    made_by: str = ""

    def recipe(self, params: Mapping[str, Any]) -> Recipe:
        """Return the recipe of a candidate."""
        return Recipe(self.method.name, tuple(parent.id for parent in self.parents.all), dict(params))

    def save(self, kind: str, params: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Checkpoint:
        """Store a candidate: ``merged``, by the name that was given, or ``interpolated``, a recipe by its parameters."""
        ends, recipe = self.parents.ends, self.recipe(params)
        prefix = checkpoint_prefix(ModelConfig.from_json(ends[0].model))
        tasks = "+".join(dict.fromkeys(in_utf8(Path(str(end.config.get("task", end.name))).name) for end in ends))
        if kind == MERGED:
            name = self.name or f"{prefix}/{tasks}/{self.made_by or self.method.name}"
        else:
            name = f"{prefix}/{tasks}/{self.method.name}/{described(params)}"
        trainings = {end.training for end in ends}
        first, *rest = (end.config for end in ends)
        shared = {key: value for key, value in first.items() if all(other.get(key) == value for other in rest)}
        shared |= self._tasks()
        with self._writer(recipe) if kind == MERGED and self.materialize else nullcontext() as write:
            return self.store.save(
                write, kind=kind, name=name, model=ends[0].model, training=trainings.pop() if len(trainings) == 1 else "",
                recipe=recipe, head=merged_head(self.parents.all), config=shared | dict(config or {}),
            )  # fmt: skip

    def _writer(self, recipe: Recipe) -> AbstractContextManager[Callable[..., str]]:
        """Return what writes the weights of a recipe, from file to file in little memory."""
        check_room(self.store.root, max(weights_size(self.store, parent) for parent in self.parents.all))
        return weights_writer(
            self.store, replace(self.parents.ends[0], id="", recipe=recipe, files={}), self.store.checkpoints
        )

    def _tasks(self) -> dict[str, Any]:
        """Return what the ends were trained on, and what was supported, as the settings of a training of several tasks have it."""
        trained = [end.config for end in self.parents.ends if "task" in end.config]
        words = list(dict.fromkeys(word for config in trained for word in patched_words(config)))
        if not words:
            return {}
        supported = dict.fromkeys(word for config in trained for word in config.get("supported") or ())
        several = {"tasks": words} if len(words) > 1 else {}
        return {"task": ",".join(words), "supported": [word for word in supported if word not in words], **several}

    def all(self, grid: Sequence[Mapping[str, Any]], space: str, *, final: bool) -> list[Candidate]:
        """Return the start, the ends, all merges, and the ensembles of outputs, where they are asked for.

        A merge is stored by the name that was given where it is ``final``: the only one, with no choice to come.
        """
        parents = self.parents
        rows = [Candidate(0, START, parents.start.name, parents.start)] if parents.start else []
        rows += [Candidate(None, END, end.name, end) for end in parents.ends if end is not parents.start]
        rows += [
            Candidate(
                number,
                MERGED,
                label(params) or self.method.name,
                self.save(MERGED if final else "interpolated", params),
                params,
            )
            for number, params in enumerate(grid, 1)
        ]
        if space != WEIGHTS:
            weights = {output_weights(self.method, params, len(parents.all)): params for params in grid}
            rows += [
                Candidate(None, ENSEMBLE, f"{each.method}, {described({'weights': list(shares)})}", each, params)
                for shares, params in weights.items()
                for each in ensembles(parents.all, shares)
            ]
        return rows
