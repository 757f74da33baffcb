"""Scales for the blocks of a fine-tuned model: named by the user, or learned on validation data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec

from wisepatch.analysis.coefficients import (
    PACKAGE,
    Candidate,
    can_be_searched,
    equal,
    missing_package,
    scores,
    searched,
)
from wisepatch.analysis.selection import Rule
from wisepatch.analysis.sweep_frame import sweep_frame
from wisepatch.config import ModelConfig
from wisepatch.errors import UsageError
from wisepatch.process_group import on_main
from wisepatch.store.checkpoints import Checkpoint, Recipe, Store
from wisepatch.store.recipes import weights_file
from wisepatch.training.start import checkpoint_prefix
from wisepatch.weights.depth import VISUAL, depths, read_layers
from wisepatch.weights.parameters import LAYERS
from wisepatch.workflows.run import Run
from wisepatch.workflows.sweep_plan import LEARNED, LINEAR, TEST, SweepPlan

BEGIN = tuple(step / 10 for step in range(11))  # alphas, the same for all blocks, that a search begins with


def layer_problems(plan: SweepPlan) -> Iterator[UsageError]:
    """Yield why scales cannot be learned as they are asked for."""
    if plan.layers != LEARNED:
        return
    if find_spec(PACKAGE) is None:
        yield missing_package("name the scales: --layers lines, or 0.2:1")
    if plan.select_on == TEST:
        yield UsageError(
            "learned layers would be fitted to test data", "choose on validation data: leave --select-on out"
        )
    if plan.evaluations <= len(BEGIN):
        yield UsageError(
            f"{plan.evaluations} evaluations are no search: it begins with {len(BEGIN)} scales that are the same for all blocks",
            f"give --evaluations {len(BEGIN) + 1} or more",
        )
    if not plan.rule:
        yield UsageError("--layers learned finds scales by a rule, and there is none", "add --select best-mean")
    elif plan.rule.is_certified:
        yield UsageError(
            f"{plan.rule} certifies a drop on data that nothing was fitted to, and --layers learned fits scales to it",
            "leave @ and the confidence out, or use --layers lines",
        )
    elif not can_be_searched(plan.rule):
        yield UsageError(
            f"--layers learned cannot go by {plan.rule.name}, for which one candidate alone has no score",
            "use best-mean, max-drop or weights",
        )


def layer_scales(plan: SweepPlan, end: Checkpoint, run: Run) -> dict[str, float]:
    """Return the scales of layers by the beginnings of tensors' names: those that the plan names, or what it has learned."""
    names = tensor_names(end, run.store)
    if plan.layers == LEARNED:
        return learned(plan, end, names, run)
    return read_layers([plan.layers], names)


def check_layers(plan: SweepPlan, end: Checkpoint, store: Store) -> None:
    """Raise :class:`UsageError` or :class:`UnknownNameError` for layers that ``end`` does not have."""
    names, (start,) = tensor_names(end, store), store.parents(end)
    tower = end.parts.get("visual")
    if tower and tower == start.parts.get("visual") and "=" not in plan.layers:
        raise UsageError(
            f"the image encoder of {end.name} ({end.id}) is that of its start: --layers {plan.layers} has no blocks to scale",
            "leave --layers out",
        )
    if plan.layers != LEARNED:
        read_layers([plan.layers], names)
    elif len(blocks_of(names)) < 2:
        raise UsageError("--layers learned needs blocks that are numbered, and this model has none", "leave it out")


def tensor_names(checkpoint: Checkpoint, store: Store) -> list[str]:
    """Return the names of a checkpoint's tensors."""
    from safetensors import safe_open

    with weights_file(store, checkpoint, store.checkpoints) as path, safe_open(path, "pt") as file:
        return list(file.keys())


def blocks_of(names: Sequence[str]) -> list[str]:
    """Return what has a scale of its own: all that is in no block (an empty text), and each block of the image encoder."""
    return ["", *(block for block in depths(names) if block.startswith(VISUAL))]


def learned(plan: SweepPlan, end: Checkpoint, names: Sequence[str], run: Run) -> dict[str, float]:
    """Search for the scale of each block, from 0 to 1, by the plan's rule on its validation data.

    ``theta = theta_0 + c_b (theta_1 - theta_0)`` for block ``b``. The search (CMA-ES) begins with scales that are the same for all
    blocks, which are alphas, and is never worse than they are on this data; at most ``plan.evaluations`` mixes are measured,
    round by round in one pass each. The same seed gives the same scales.
    """
    (start,), blocks, rule = run.store.parents(end), blocks_of(names), plan.rule or Rule()
    prefix = f"{checkpoint_prefix(ModelConfig.from_json(end.model))}/{plan.patching.name}"

    def mix(candidate: Candidate) -> Checkpoint:
        if len(set(candidate)) == 1 and candidate[0] in (0, 1):
            return end if candidate[0] else start
        recipe = Recipe(LINEAR, (start.id, end.id), {"alpha": 1.0, LAYERS: dict(zip(blocks, candidate, strict=True))})
        name = f"{prefix}/layers={','.join(f'{scale:g}' for scale in candidate)}"
        return run.store.save(
            None, kind="interpolated", name=name[:150], model=end.model, training=end.training, recipe=recipe,
            config=end.config, head=end.head,
        )  # fmt: skip

    def measure(asked: Sequence[Candidate]) -> Mapping[Candidate, float]:
        zero = (0.0,) * len(blocks)  # what a drop is measured from
        by_key = dict(enumerate(dict.fromkeys([zero, *asked])))
        mixes = on_main(lambda: {key: mix(each) for key, each in by_key.items()})
        key_of = {each.id: float(key) for key, each in mixes.items()}
        rows = run.measure(
            list(mixes.values()), plan.tasks_on(plan.select_on), plan.select_on, plan.metrics, notes=False,
            extra_fields=lambda checkpoint, _: {"alpha": key_of.get(checkpoint.id)},
        )  # fmt: skip
        patched = [each.name for each in plan.patching.each]
        of_round = scores(sweep_frame(rows, patched, [each.name for each in plan.judges(plan.select_on)]), rule)
        return {each: float(of_round[float(key)]) for key, each in by_key.items()}

    known = searched(measure, equal(BEGIN, len(blocks)), plan.evaluations, end.config.get("seed") or 0)
    best = max(known, key=lambda each: (known[each], -sum(each)))
    words = ", ".join(f"{block or 'the rest'} {scale:g}" for block, scale in zip(blocks, best, strict=True))
    if run.progress:
        run.progress.note(f"layers learned from {len(known)} mixes on {plan.select_on} data: {words}")
    return dict(zip(blocks, best, strict=True))
