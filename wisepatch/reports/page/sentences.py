"""Sentences of a report: what was done, what came out, how alpha was chosen, what was certified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wisepatch.config import DEMO, ModelConfig
from wisepatch.counting import count
from wisepatch.reports.making_again import public
from wisepatch.reports.numbers import percent, points
from wisepatch.reports.page.tables import differences, mix_words, split_words
from wisepatch.store.checkpoints import Checkpoint
from wisepatch.workflows.cautions import cautions

if TYPE_CHECKING:
    from wisepatch.workflows.sweep import Sweep

TRAININGS = {
    "paint": "The image encoder was fine-tuned against a frozen head that is built from text (PAINT)",
    "wise-ft": "Image encoder and zero-shot head were fine-tuned end to end (WiSE-FT)",
    "linear-probe": "The head alone was trained, a linear classifier over fixed features (WiSE-FT)",
}
METHODS = {
    "linear": "mixed linearly, theta = (1 - alpha) * theta_0 + alpha * theta_1",
    "task-arithmetic": "merged by their task vectors, theta_0 + sum of coefficient * (theta_i - theta_0)",
    "fisher": "mixed by Fisher information, which weighs each parameter",
}
RULES = {
    "best-mean": "the best mean of patching and supported accuracy",
    "max-drop": "the best patching accuracy whose supported accuracy drops by at most the bound",
    "knee": "the bend of the curve",
    "alpha": "an alpha that was given beforehand",
    "weights": "the best weighted mean",
}


def model_words(checkpoint: Checkpoint | None, fallback: str) -> str:
    """Return what a model is called; folders go by their names."""
    if checkpoint is None:
        return fallback or "a model"
    model = ModelConfig.from_json(checkpoint.model)
    if model.model.lower() == DEMO:
        return "the embedded model (demo)"
    return " ".join(filter(None, (public(model.model), model.pretrained and f"({Path(model.pretrained).name})")))


def what_was_done(sweep: Sweep, ends: Sequence[Checkpoint], model: str) -> Iterator[str]:
    """Say what was trained, mixed and measured."""
    training = next((str(row["training"]) for row in sweep.rows if row.get("training")), "")
    trained = TRAININGS.get(training, f"It was fine-tuned ({training})" if training else "It was fine-tuned")
    config = ends[0].config if ends else {}
    if len(ends) > 1:
        trained = f"{trained}, once for each of {len(ends)} tasks from the same start"
    length = (
        f"{config['steps']} steps"
        if config.get("steps")
        else f"{config['epochs']:g} epochs"
        if config.get("epochs")
        else ""
    )
    settings = [
        length and f"{length} of {config.get('batch_size')} images",
        f"peak learning rate {config['lr']:g}" if config.get("lr") else "",
        f"seed {config['seed']}" if config.get("seed") is not None else "",
        f"at most {config['limit']} images of each split" if config.get("limit") else "",
        "imported weights" if "imported" in config else "",
    ]
    told = ", ".join(filter(None, settings))
    yield f"{model[:1].upper()}{model[1:]} was patched on {patched_words(sweep)}. {trained}{f': {told}' if told else ''}."
    alphas = sorted({point.alpha for of in sweep.points.values() for point in of})
    method = next(
        (str(row["method"]) for row in sweep.rows if row.get("method") and row["alpha"] is not None), "linear"
    )
    span = (
        f"{count(len(alphas), 'alpha')} from {alphas[0]:g} to {alphas[-1]:g}"
        if len(alphas) > 1
        else f"alpha {alphas[0]:g}"
    )
    if sweep.coefficients:
        span = f"{count(len(alphas), 'choice')} of a coefficient for each end"
    yield (
        f"The weights from before (theta_0, {sweep.start_words}) and after (theta_1, fine-tuned) were "
        f"{METHODS.get(method, f'merged by the method {method}')}, at {span}."
    )
    others = (
        f" and on {count(len(sweep.supported), 'supported task')}: {', '.join(sweep.supported)}"
        if sweep.supported
        else ""
    )
    splits = " and ".join(split_words(split) for split in sweep.points)
    yield f"{'The mixes were' if sweep.coefficients else 'Every mix was'} measured on {patched_words(sweep)}{others}, on {splits}."


def patched_words(sweep: Sweep) -> str:
    """Return the names of what is patched."""
    *names, last = sweep.patching_tasks
    return f"{', '.join(names)} and {last}" if names else last


def what_came_out(sweep: Sweep, split: str, alpha: float | None) -> str:
    """Say what the change was from alpha 0 to the chosen one, or to the last."""
    of_split = {point.alpha: point for point in sweep.points[split]}
    first, last = min(of_split), max(of_split) if alpha is None or alpha not in of_split else alpha
    several = len(sweep.patching_tasks) > 1
    before, after = of_split[first], of_split[last]
    compared = None if several else differences(sweep, split, last).get(sweep.patching)
    change = ""
    if compared and first == 0:
        shift, interval = points(compared.difference, compared.low, compared.high).rstrip(")").split(" (")
        change = f" ({shift} points, 95 % interval {interval})"
    start = sweep.start_words if first == 0 else mix_words(sweep, first)
    patched = f"the mean of {patched_words(sweep)}" if several else sweep.patching
    mean = ""
    if before.supported is not None and after.supported is not None:
        names = f"the mean of {', '.join(sweep.supported)}" if len(sweep.supported) > 1 else sweep.supported[0]
        mean = f"; {names} went from {percent(before.supported)} to {percent(after.supported)} %"
    return (
        f"On {split_words(split)}, {patched} went from {percent(before.patching)} % ({start}) to "
        f"{percent(after.patching)} % at {mix_words(sweep, last)}{change}{mean}."
    )


def how_chosen(sweep: Sweep, alpha: float | None) -> Iterator[str]:
    """Say which rule chose alpha on which data, what the rule says of it, and where the choice may not hold."""
    if alpha is None:
        yield "No alpha was chosen: `wisepatch select` applies a rule to these results, `interpolate --select RULE` keeps a model."
        return
    data = {
        "val": "validation data; test data was measured once, after the choice",
        "test": "TEST DATA, so that its figures are too good",
    }
    mix, were = mix_words(sweep, alpha).capitalize(), "were" if sweep.coefficients else "was"
    on = data.get(str(sweep.selected_on), f"the {sweep.selected_on} split")
    if sweep.rule:
        meaning = RULES.get(sweep.rule.name)
        yield f"{mix} {were} chosen by the rule {sweep.rule}{f' ({meaning})' if meaning else ''} on {on}."
    else:
        yield f"{mix} {were} chosen on {on}; the checkpoint that names the rule is not in the store any more."
    unjudged = [task for task in sweep.supported if task not in sweep.judges]
    if unjudged:
        yield f"Without a part in the choice, as they have no such split: {', '.join(unjudged)}."
    if sweep.choice and all(
        at in sweep.checkpoints for at in {point.alpha for of in sweep.points.values() for point in of}
    ):
        yield from (f"{caution[:1].upper()}{caution[1:]}." for caution in cautions(sweep))


def what_is_certified(sweep: Sweep, alpha: float | None) -> str:
    """Say what the rule promises of the drop of the supported tasks, or that nothing is promised."""
    if sweep.note:
        return f"{sweep.note[:1].upper()}{sweep.note[1:]}."
    if alpha is None or not sweep.supported:
        return "Nothing was certified."
    if sweep.rule and sweep.rule.is_certified:
        return "The rule is one that certifies a drop; whether it did, the rows that are kept do not tell."
    return "Nothing was certified: a rule like max-drop=0.01@95 promises, at 95 % confidence, that the drop is at most a point."
