"""Patch CLIP-like models: fine-tune on one task, mix the weights from before and after, keep the rest.

``import wisepatch as wp`` gives everything that the command line does; each name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wisepatch.analysis.metrics import measure
    from wisepatch.analysis.selection import Point, Rule, choose, parse_rule
    from wisepatch.config import EvalConfig, ModelConfig, TrainConfig, parse_alphas
    from wisepatch.datasets.base import Dataset, Split
    from wisepatch.errors import WisepatchError
    from wisepatch.evaluation.measurement import evaluate
    from wisepatch.evaluation.prediction import predict_many
    from wisepatch.hookspecs import Measured, MergeMethod, Metric, SelectionRule, hookimpl
    from wisepatch.models.classifier import Classifier
    from wisepatch.models.clip import Clip, load_clip
    from wisepatch.models.exporting import export
    from wisepatch.models.zeroshot_head import zeroshot_head
    from wisepatch.reports.plots import draw_sweep, save_figure, sweep_table
    from wisepatch.store.checkpoints import Checkpoint, Store
    from wisepatch.store.recipes import load_weights
    from wisepatch.store.results import read as read_results
    from wisepatch.tasks import Task, find_task, find_tasks
    from wisepatch.training.finetuning import finetune
    from wisepatch.weights.methods import interpolate
    from wisepatch.weights.streaming import merge_files
    from wisepatch.workflows.patching import patch, zeroshot
    from wisepatch.workflows.sweep import sweep

__version__: str

_HOMES = {  # public name: its module, and its name there where that is another
    "Checkpoint": "store.checkpoints",
    "Classifier": "models.classifier",
    "Clip": "models.clip",
    "Dataset": "datasets.base",
    "EvalConfig": "config",
    "Measured": "hookspecs",
    "MergeMethod": "hookspecs",
    "Metric": "hookspecs",
    "ModelConfig": "config",
    "Point": "analysis.selection",
    "Rule": "analysis.selection",
    "SelectionRule": "hookspecs",
    "Split": "datasets.base",
    "Store": "store.checkpoints",
    "Task": "tasks",
    "TrainConfig": "config",
    "WisepatchError": "errors",
    "choose": "analysis.selection",
    "draw_sweep": "reports.plots",
    "evaluate": "evaluation.measurement",
    "export": "models.exporting",
    "find_task": "tasks",
    "find_tasks": "tasks",
    "finetune": "training.finetuning",
    "hookimpl": "hookspecs",
    "interpolate": "weights.methods",
    "load_clip": "models.clip",
    "load_weights": "store.recipes",
    "measure": "analysis.metrics",
    "merge_files": "weights.streaming",
    "parse_alphas": "config",
    "parse_rule": "analysis.selection",
    "patch": "workflows.patching",
    "predict_many": "evaluation.prediction",
    "read_results": "store.results:read",
    "save_figure": "reports.plots",
    "sweep": "workflows.sweep",
    "sweep_table": "reports.plots",
    "zeroshot": "workflows.patching",
    "zeroshot_head": "models.zeroshot_head",
}

# `predict` will be for images.
_RENAMED = {
    "Encoder": "Clip",
    "FinetuneConfig": "TrainConfig",
    "load_encoder": "load_clip",
    "predict": "predict_many",
}

__all__ = [
    "Checkpoint",
    "Classifier",
    "Clip",
    "Dataset",
    "EvalConfig",
    "Measured",
    "MergeMethod",
    "Metric",
    "ModelConfig",
    "Point",
    "Rule",
    "SelectionRule",
    "Split",
    "Store",
    "Task",
    "TrainConfig",
    "WisepatchError",
    "__version__",
    "choose",
    "draw_sweep",
    "evaluate",
    "export",
    "find_task",
    "find_tasks",
    "finetune",
    "hookimpl",
    "interpolate",
    "load_clip",
    "load_weights",
    "measure",
    "merge_files",
    "parse_alphas",
    "parse_rule",
    "patch",
    "predict_many",
    "read_results",
    "save_figure",
    "sweep",
    "sweep_table",
    "zeroshot",
    "zeroshot_head",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562); ``__version__`` too: importlib.metadata costs as much as all the rest."""
    if name == "__version__":
        from importlib.metadata import version

        return version("wisepatch")
    if name in _RENAMED:
        from wisepatch.errors import warn_renamed

        warn_renamed(f"wisepatch.{name}", f"wisepatch.{_RENAMED[name]}")
        name = _RENAMED[name]
    if name not in _HOMES:
        raise AttributeError(f"module 'wisepatch' has no attribute {name!r}")
    home, _, other = _HOMES[name].partition(":")
    return getattr(import_module(f"wisepatch.{home}"), other or name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
