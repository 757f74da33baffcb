"""The commands that make a checkpoint again, from the published model or from what was imported."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from wisepatch.alphas import DEFAULT_ALPHAS, parse_alphas
from wisepatch.config import SCHEMAS, ModelConfig, TrainConfig
from wisepatch.reports.checkpoint_tables import ancestors
from wisepatch.reports.evidence import Evidence
from wisepatch.store.checkpoints import Checkpoint, Store


def public(word: str) -> str:
    """Return a word for a task or model without the folders of the machine: the name of what a path leads to."""
    scheme = next((each for each in (*SCHEMAS, "typo:") if word.startswith(each)), "")
    rest = word.removeprefix(scheme)
    path, mark, options = rest.partition("?")
    return f"{scheme}{Path(path).name}{mark}{options}" if Path(path).is_absolute() else word


def commands(store: Store, checkpoint: Checkpoint, found: Evidence, kind: str) -> str:
    """Return the commands that make a checkpoint and export it, as a block of Markdown; folders go by their names."""
    lines = command_lines(store, checkpoint, found, ("--format", kind) if kind != "open_clip" else ())
    return "```console\n" + "".join(f"{line}\n" for line in lines) + "```"


def command_lines(store: Store, checkpoint: Checkpoint, found: Evidence, form: Sequence[str] = ()) -> list[str]:
    """Return the commands that make a checkpoint and export it in a form (``--format NAME``); folders go by their names."""
    model = ModelConfig.from_json(checkpoint.model)
    of_model = [
        "--model",
        public(model.model),
        *(["--pretrained", Path(model.pretrained).name] if model.pretrained else []),
    ]
    lines: list[list[str]] = []
    select = checkpoint.config.get("select") if checkpoint.kind == "patched" else None
    on = ["--select-on", "test"] if checkpoint.config.get("select_on") == "test" else []
    usual = ("", "linear", *(["task-arithmetic"] if checkpoint.config.get("strategy") else []))
    fisher = ["--method", checkpoint.method] if checkpoint.method not in usual else []
    task = ["--task", public(checkpoint.config["task"])] if "task" in checkpoint.config else []
    mix = ["interpolate", "--alpha", f"{checkpoint.alpha:g}"] if checkpoint.alpha is not None else []
    lineage = (*ancestors(store, checkpoint), checkpoint)
    imported = [each.config for each in lineage if not isinstance(each, str) and "imported" in each.config]
    if imported:
        files, last = dict.fromkeys(each["imported"]["from"] for each in imported), imported[-1]
        named = ["--task", public(last["task"])] if "task" in last else []
        lines.append(["import", *files, *named, *map(public, last["imported"].get("options", ()))])
        mix = ["interpolate", *_alphas(found), "--select", select, *on] if select else mix
        lines += [[*mix, *fisher]] if mix else []
    elif checkpoint.kind == "merged" and checkpoint.recipe:
        parents = [each for each in checkpoint.recipe.parents if not _is_start(store, each)]
        words = [
            f"{name}={_written(value)}" for name, value in checkpoint.recipe.params.items() if name not in OF_MERGES
        ]
        params = [word for each in words for word in ("--param", each)]
        lines.append(["merge", *parents, "--method", checkpoint.method, *params, "--name", checkpoint.name])
    elif task:
        words = [*of_model, *_training_words(_of_all_tasks(checkpoint.config)), *_strategy_words(checkpoint.config)]
        if select:
            lines.append(["patch", *words, "--select", select, *on, *_alphas(found), *fisher])
        else:
            lines += [["finetune", *words], *([[*mix, *fisher]] if mix else [])]
    elif checkpoint.kind == "zeroshot":
        lines.append(["zeroshot", *of_model, "--task", "TASK"])
    name = checkpoint.name if checkpoint.kind in ("interpolated", "merged") else checkpoint.kind
    lines.append(["export", name, "DIR", *form])
    return [f"wisepatch {shlex.join(words)}" for words in lines]


def _of_all_tasks(config: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of a training; one after the other, the last began with a model patched on the way."""
    sequential = config.get("strategy") == "sequential"
    return TrainConfig.from_json(dict(config) | ({"start": None} if sequential else {}))


def _strategy_words(config: Mapping[str, Any]) -> list[str]:
    """Return the options of a patch of several tasks."""
    if "strategy" not in config:
        return []
    words = ["--strategy", config["strategy"]]
    words += ["--balance", config["balance"]] if config.get("balance", "examples") != "examples" else []
    words += ["--coefficients", config["found"]] if config.get("found", "equal") != "equal" else []
    return words + (["--evaluations", str(config["evaluations"])] if "evaluations" in config else [])


OF_MERGES = ("fisher", "gram", "layers")


def _is_start(store: Store, identity: str) -> bool:
    return store.get(identity).kind in ("zeroshot", "start")


def _written(value: object) -> str:
    return "/".join(f"{each:g}" for each in value) if isinstance(value, list) else f"{value}"


def _training_words(trained: TrainConfig) -> list[str]:
    """Return the options of a training that differ from their defaults."""
    usual = TrainConfig.with_defaults(trained.task, head=trained.head, freeze_encoder=trained.freeze_encoder)
    words = ["--task", ",".join(map(public, trained.tasks or (trained.task,)))]
    if trained.supported:
        words += ["--supported", ",".join(map(public, trained.supported))]
    if trained.classnames:
        commas = any("," in name for name in trained.classnames)
        words += ["--classnames", "names.txt" if commas else ",".join(trained.classnames)]
    words += [f"--template={template}" for template in trained.templates or ()]
    for field in (
        each for each in fields(trained) if "help" in each.metadata and each.name not in ("save_every", "track")
    ):
        value = getattr(trained, field.name)
        plain = (
            TrainConfig.__dataclass_fields__[field.name].default if field.name in ("head", "freeze_encoder") else None
        )
        if value is None or value is False or value == (getattr(usual, field.name) if plain is None else plain):
            continue
        flag = field.metadata.get("flags", (f"--{field.name.replace('_', '-')}",))[0]
        words += [flag] if value is True else [flag, str(value)]
    return words


def _alphas(found: Evidence) -> list[str]:
    alphas = sorted(found.sweep["alpha"].dropna().unique().tolist()) if found.run else []
    if not alphas or tuple(alphas) == parse_alphas(DEFAULT_ALPHAS):
        return []
    return ["--alpha", ",".join(f"{alpha:g}" for alpha in alphas)]
