"""Call what a plugin registers beside datasets with a small example: metrics, merge methods, rules; look at objectives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from wisepatch.analysis.sweep_frame import sweep_frame
from wisepatch.datasets.samples import Annotations
from wisepatch.hookspecs import Choice, Measured, MergeMethod, Metric, Objective, Scores, SelectionRule
from wisepatch.plugins import Plugin
from wisepatch.testing.findings import Findings, calling, require


def inspect_registered(findings: Findings, plugin: Plugin) -> None:
    """Call each metric, merge method and rule with a small example; look at the fields of objectives."""
    checks: dict[str, Callable[[Any], None]] = {
        "register_metrics": _check_metric,
        "register_merge_methods": _check_method,
        "register_rules": _check_rule,
        "register_objectives": _check_objective,
    }
    for hook, check in checks.items():
        for each in plugin.registered.get(hook, ()):
            findings.run(each.name, hook, check, each)


def _check_metric(metric: Metric) -> None:
    known = {field.name for field in fields(Annotations)}
    unknown = [name for name in metric.needs if name not in known]
    require(not unknown, f"needs: {', '.join(unknown)} is no annotation; known: {', '.join(sorted(known))}")
    if metric.needs:
        return  # no example has all that it may need
    import numpy as np

    labels, predicted = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])
    scores = Scores(np.array([0.9, 0.8, 0.6, 0.7]), np.array([0, 0, 1, 0]), np.array([0.02, 0.08, 0.72, 0.18]))
    given = [labels, predicted, 2, Annotations(), *([scores] if metric.needs_scores else [])]
    with calling("measure", f"labels, predicted, classes, annotations{', scores' * metric.needs_scores}"):
        measured = dict(metric.measure(*given))
    require(metric.name in measured, f"measure: it yields {', '.join(measured) or 'nothing'}, and not {metric.name}")
    for value in measured.values():
        require(isinstance(value, Measured), f"measure: it yields a {type(value).__name__}; yield wisepatch.Measured")


def _check_method(method: MergeMethod) -> None:
    import torch

    same = torch.arange(4.0)
    if method.parameters:
        from wisepatch.weights.methods import merge_weights
        from wisepatch.weights.parameters import read_params

        ends = max(method.ends[0], 1 if method.from_start else 2)
        models = [{"w": same.clone()} for _ in range(ends + method.from_start)]
        defaults = {"alpha": 0.5} | read_params(method, [], ends)[0]
        with calling("merge", "tensors, params and out"):
            merged = merge_weights(method, models, defaults)["w"]
        require(torch.equal(merged, same), "merge: of equal models it makes another one with its defaults")
        return
    params = {"alpha": 0.5} | ({"fishers": [torch.ones(4)] * 2} if method.needs_fisher else {})
    with calling("merge", "tensors, params and out"):
        merged = method.merge([same, same.clone()], params, None)
    require(torch.equal(merged, same), "merge: of two equal tensors it makes another one; return that tensor")


def _check_rule(rule: SelectionRule) -> None:
    values = {"A": (0.1, 0.8, 0.9), "B": (0.9, 0.8, 0.5)}
    rows = [
        {"alpha": alpha, "task": task, "metric": "top1", "value": value, "n": 100, "broken": 10 * number, "fixed": number}
        for task, known in values.items() for number, (alpha, value) in enumerate(zip((0.0, 0.5, 1.0), known, strict=True))
    ]  # fmt: skip
    if rule.takes and rule.read:
        return  # nobody knows an example of what it takes
    with calling("choose", "a frame and a value"):
        chosen = rule.choose(sweep_frame(rows, "A", ["B"]), 0.01 if rule.takes else None)
    alpha = chosen.alpha if isinstance(chosen, Choice) else chosen
    fits = isinstance(alpha, float | int) and alpha in (0, 0.5, 1)
    require(fits, f"choose: it returns {alpha!r}; return one of the alphas of the frame, or a wisepatch.Choice")


def _check_objective(objective: Objective) -> None:
    require(callable(objective.prepare), "prepare: it cannot be called; give a function that returns the loss")
    require(objective.head in ("", "frozen", "trained"), f"head: {objective.head!r} is not frozen, trained or empty")
    for name, value in objective.params.items():
        kinds = f"params: {name} is a {type(value).__name__}; give a number or a text, from which its type is read"
        require(type(value) in (int, float, str), kinds)
