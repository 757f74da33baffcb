"""The commands that make a checkpoint again, from the published model or from what was imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.alphas import DEFAULT_ALPHAS, parse_alphas
from wisepatch.analysis.sweep_frame import SUPPORTED
from wisepatch.config import SCHEMAS, ModelConfig
from wisepatch.errors import StoreError, UnknownNameError, UsageError
from wisepatch.files import in_utf8
from wisepatch.plugins import find_merge_method
from wisepatch.reports.checkpoint_tables import ancestors
from wisepatch.reports.evidence import Evidence, evidence
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.task_specs import WRAPPERS, class_options
from wisepatch.terminal import pasted
from wisepatch.train_config import TrainConfig
from wisepatch.training.fisher_information import EXAMPLES
from wisepatch.weights.depth import gradient
from wisepatch.weights.parameters import LAYERS
from wisepatch.workflows.model_table import ALSO
from wisepatch.workflows.parallel_patching import METHOD as TASK_ARITHMETIC
from wisepatch.workflows.sweep_plan import JOINT, PARALLEL, SEQUENTIAL, TOP1

if TYPE_CHECKING:
    import pandas as pd

NOT_OF_THE_WEIGHTS = ("save_every", "track")  # settings of a training that decide about nothing
MEASURED = ("fisher", "gram")  # parameters of a recipe that are no options


def public(word: str) -> str:
    """Return a word for a task or model without the folders of the machine: the name of what a path leads to."""
    for scheme in (*SCHEMAS, *WRAPPERS):
        if word.startswith(scheme):
            return scheme + public(word.removeprefix(scheme))
    path, mark, options = word.partition("?")
    return in_utf8(f"{Path(path).name}{mark}{options}") if Path(path).is_absolute() else word


def commands(store: Store, checkpoint: Checkpoint, found: Evidence, kind: str) -> str:
    """Return the commands that make a checkpoint and export it, as a block of Markdown; folders go by their names."""
    lines = command_lines(store, checkpoint, found, ("--format", kind) if kind != "open_clip" else ())
    return "```console\n" + "".join(f"{line}\n" for line in lines) + "```"


def command_lines(store: Store, checkpoint: Checkpoint, found: Evidence, form: Sequence[str] = ()) -> list[str]:
    """Return the commands that make a checkpoint and export it in a form (``--format NAME``); folders go by their names."""
    name = checkpoint.name if checkpoint.kind in ("interpolated", "merged") else checkpoint.kind
    return _as_lines([*_making(store, checkpoint, found), ["export", name, "DIR", *form]])


def sweep_lines(store: Store, mix: Checkpoint, found: Evidence) -> list[str]:
    """Return the commands that make a whole sweep again, of which ``mix`` is the patched checkpoint or any other mix."""
    return _as_lines(_making(store, mix, found, whole=True))


def _as_lines(commands: Sequence[Sequence[str]]) -> list[str]:
    return [f"wisepatch {pasted(words)}" for words in commands]


def _making(store: Store, checkpoint: Checkpoint, found: Evidence, *, whole: bool = False) -> list[list[str]]:
    """Return the words of the commands that make a checkpoint; those of a ``whole`` sweep make all of its mixes."""
    config = checkpoint.config
    lineage = {each.id: each for each in ancestors(store, checkpoint) if not isinstance(each, str)}
    if checkpoint.kind == "merged" or (checkpoint.kind == "interpolated" and checkpoint.method == TASK_ARITHMETIC):
        return _merging(store, checkpoint)
    mixing = (
        [_interpolate_words(checkpoint, found, whole=whole)] if checkpoint.kind in ("interpolated", "patched") else []
    )
    end = lineage.get(checkpoint.parents[-1]) if mixing else checkpoint
    if end and (imported := end.config.get("imported")):
        before = _making_named(store, imported["parent"]) if "parent" in imported else []
        mixed = [[*words, "--checkpoint", end.name] for words in mixing]
        return [*before, ["import", *map(public, imported.get("command", [imported["from"]]))], *mixed]
    if "task" not in config:
        return [["zeroshot", *_model_words(checkpoint), "--task", "TASK"]] if checkpoint.kind == "zeroshot" else mixing
    first = _first_training(checkpoint, lineage.values())
    trained = TrainConfig.from_json(config | {"start": first.config.get("start")})
    words = [*([] if trained.start else _model_words(checkpoint)), *_training_words(trained), *_strategy_words(config)]
    before = _making_start(store, first) if trained.start else []
    if checkpoint.kind == "patched" and not _needs_interpolate(checkpoint, found):
        return [*before, ["patch", *words, *_selection_words(checkpoint, found), *_also_words(found)]]
    several = ["--strategy", JOINT] if trained.tasks and "--strategy" not in words else []
    return [*before, ["patch" if trained.tasks else "finetune", *words, *several], *mixing]


def _making_named(store: Store, identity: str) -> list[list[str]]:
    """Return the commands that make another checkpoint of the store; none for one that was removed."""
    with suppress(StoreError):
        checkpoint = store.get(identity)
        return _making(store, checkpoint, evidence(store, checkpoint))
    return []


def _merging(store: Store, checkpoint: Checkpoint) -> list[list[str]]:
    """Return the commands that make the ends of a merge, and the one that merges them."""
    assert checkpoint.recipe is not None
    start, ends = [], list(checkpoint.recipe.parents)
    with suppress(UnknownNameError):  # a method of a plugin that is not installed
        start = [ends.pop(0)] if find_merge_method(checkpoint.method).from_start else []
    given = [each for each in start if _kind(store, each) not in ("zeroshot", "start")]
    params = {name: value for name, value in checkpoint.recipe.params.items() if name not in (*MEASURED, LAYERS)}
    words = [word for name, value in params.items() for word in ("--param", f"{name}={_written(value)}")]
    made: list[list[str]] = []
    for each in (*given, *ends):
        made += [line for line in _making_named(store, each) if line not in made]
    merge = ["merge", *ends, "--method", checkpoint.method, *words, *_layer_words(checkpoint)]
    return [*made, [*merge, *(word for each in given for word in ("--from", each)), "--name", checkpoint.name]]


def _kind(store: Store, identity: str) -> str:
    try:
        return store.get(identity).kind
    except StoreError:
        return ""


def _model_words(checkpoint: Checkpoint) -> list[str]:
    model = ModelConfig.from_json(checkpoint.model)
    return [
        "--model",
        public(model.model),
        *(["--pretrained", Path(model.pretrained).name] if model.pretrained else []),
    ]


def _first_training(checkpoint: Checkpoint, lineage: Iterable[Checkpoint]) -> Checkpoint:
    """Return the checkpoint that says what a training began with; of tasks that were patched one after the other, the first end."""
    if checkpoint.config.get("strategy") != SEQUENTIAL:
        return checkpoint
    first = checkpoint.config["tasks"][0]
    ends = (each for each in lineage if each.kind == "finetuned" and each.config.get("task") == first)
    return next(ends, checkpoint)


def _making_start(store: Store, trained: Checkpoint) -> list[list[str]]:
    """Return the commands that make what a training began with, which makes it the newest of its kind and name."""
    with suppress(StoreError):
        start = store.get(trained.parents[0])
        return _making_named(store, start.parents[0] if start.kind == "start" else start.id)
    return []


def _training_words(trained: TrainConfig) -> list[str]:
    """Return the options of a training that differ from their defaults."""
    usual = TrainConfig.with_defaults(trained.task, head=trained.head, freeze_encoder=trained.freeze_encoder)
    words = ["--task", ",".join(map(public, trained.tasks or (trained.task,)))]
    if trained.supported:
        words += ["--supported", ",".join(map(public, trained.supported))]
    words += class_options(trained.classnames or (), trained.templates or ())
    for field in fields(trained):
        if "help" not in field.metadata or field.name in NOT_OF_THE_WEIGHTS:
            continue
        value = getattr(trained, field.name)
        plain = field.default if field.name in ("head", "freeze_encoder") else getattr(usual, field.name)
        if value is None or value is False or value == plain:
            continue
        flag = field.metadata.get("flags", (f"--{field.name.replace('_', '-')}",))[0]
        if value is True:
            words.append(flag)
        else:
            given = value if isinstance(value, tuple) else (value,)
            words += [word for each in given for word in (flag, public(str(each)))]
    return words


def _strategy_words(config: Mapping[str, Any]) -> list[str]:
    """Return the options of a patch of several tasks."""
    if "strategy" not in config:
        return []
    words = ["--strategy", config["strategy"]]
    words += ["--balance", config["balance"]] if config.get("balance", "examples") != "examples" else []
    words += ["--coefficients", config["found"]] if config["strategy"] == PARALLEL and "found" in config else []
    return words + (["--evaluations", str(config["evaluations"])] if "evaluations" in config else [])


def _needs_interpolate(checkpoint: Checkpoint, found: Evidence) -> bool:
    """Tell whether a sweep has what ``patch`` has no options for."""
    recipe = checkpoint.recipe
    given = recipe is not None and (
        LAYERS in recipe.params or "examples" not in recipe.params.get("fisher", {"examples": 0})
    )
    return given or bool(_measuring_words(checkpoint, found))


def _interpolate_words(checkpoint: Checkpoint, found: Evidence, *, whole: bool) -> list[str]:
    """Return the sweep that a mix is chosen from, or the mix alone."""
    own = [] if checkpoint.alpha is None else ["--alpha", _number(checkpoint.alpha)]
    chosen = whole or "select" in _chosen_by(checkpoint)
    words = _selection_words(checkpoint, found) if chosen else [*own, *_method_words(checkpoint)]
    return ["interpolate", *words, *_layer_words(checkpoint), *(_measuring_words(checkpoint, found) if chosen else [])]


def _chosen_by(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return checkpoint.config if checkpoint.kind == "patched" else {}


def _selection_words(checkpoint: Checkpoint, found: Evidence) -> list[str]:
    """Return the alphas of a sweep, how they were mixed, and how one of them was chosen."""
    chosen = _chosen_by(checkpoint)
    words = ["--select", chosen["select"]] if chosen.get("select") else []
    words += ["--select-on", "test"] if chosen.get("select_on") == "test" else []
    alphas = sorted(found.sweep["alpha"].dropna().unique().tolist()) if found.run else []
    if alphas and tuple(alphas) != parse_alphas(DEFAULT_ALPHAS):
        words += ["--alpha", ",".join(map(_number, alphas))]
    names = found.sweep["run_name"].dropna().unique().tolist() if found.run and "run_name" in found.sweep else []
    return [*words, *_method_words(checkpoint), *(["--name", names[-1]] if names and names[-1] else [])]


def _method_words(checkpoint: Checkpoint) -> list[str]:
    """Return the merge method where it is not the usual one, with the images that it was measured on."""
    if checkpoint.recipe is None or checkpoint.method in ("", "linear", TASK_ARITHMETIC):
        return []
    fisher = checkpoint.recipe.params.get("fisher", {})
    if fisher and "examples" not in fisher:  # given as files
        return ["--fisher", "F0,F1"]
    examples = fisher.get("examples", EXAMPLES)
    return ["--method", checkpoint.method, *(["--fisher-examples", str(examples)] if examples != EXAMPLES else [])]


def _layer_words(checkpoint: Checkpoint) -> list[str]:
    """Return the scales of layers, also those that were learned: from the first block to the last, or by name."""
    layers = checkpoint.recipe.params.get(LAYERS) if checkpoint.recipe else None
    if not layers:
        return []
    *_, last = layers.values()
    by_depth = f"{_number(layers.get('', 1))}:{_number(last)}"
    with suppress(UsageError):
        if gradient(by_depth, [f"{block}.weight" for block in layers]) == layers:
            return ["--layers", by_depth]
    return [f"--layers={','.join(f'{name}={_number(scale)}' for name, scale in layers.items())}"]


def _measuring_words(checkpoint: Checkpoint, found: Evidence) -> list[str]:
    """Return what a sweep was measured on and by, where it is not what its training says."""
    if not found.run:
        return []
    rows, config = found.sweep, checkpoint.config
    words = []
    supported = list(dict.fromkeys(rows[rows["role"] == SUPPORTED]["task"])) if "role" in rows else []
    usual = {public(each).partition("?")[0].removesuffix("@val") for each in config.get("supported") or ()}
    if "strategy" not in config and supported and set(map(public, supported)) != usual:
        words += ["--eval", _task_words(rows[rows["role"] == SUPPORTED], rows)]
    metrics = [
        list(dict.fromkeys(of_task))
        for _, of_task in rows[~rows["metric"].str.contains("[", regex=False)].groupby("task")["metric"]
    ]
    if metrics and all(of_task == metrics[0] for of_task in metrics) and metrics[0] != [TOP1]:  # else each task's own
        words += ["--metric", ",".join(metrics[0])]
    limits = rows["limit"].dropna().unique().tolist() if "limit" in rows else []
    return words + (["--limit", f"{limits[0]:g}"] if limits and limits != [config.get("limit")] else [])


def _also_words(found: Evidence) -> list[str]:
    """Return the tasks that were measured at the end, with no part in training and choice."""
    rows = found.sweep[found.sweep["role"] == ALSO] if found.run and "role" in found.sweep else found.sweep[:0]
    return ["--also", _task_words(rows, found.sweep)] if len(rows) else []


def _task_words(rows: pd.DataFrame, sweep: pd.DataFrame) -> str:
    """Return the words for tasks of a sweep, with the split of those that were measured on one of their own."""
    splits = {str(task): set(of_task) for task, of_task in rows.groupby("task", sort=False)["split"]}
    own = {
        task: f"@{min(of_task)}" if "test" not in of_task and "test" in set(sweep["split"]) else ""
        for task, of_task in splits.items()
    }
    return ",".join(f"{public(task)}{split}" for task, split in own.items())


def _written(value: object) -> str:
    values = value if isinstance(value, list) else [value]
    return "/".join(_number(each) if isinstance(each, float) else str(each) for each in values)


def _number(value: float) -> str:
    """Write a number with as few digits as tell it from all others."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(float(value))
