"""Patch CLIP-like models: fine-tune on one task, mix the weights from before and after, keep the rest.

``import wisepatch as wp`` gives everything that the command line does; each name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wisepatch.alphas import parse_alphas
    from wisepatch.analysis.metrics import measure
    from wisepatch.analysis.patching_measures import patching_measures
    from wisepatch.analysis.robustness import effective_robustness
    from wisepatch.analysis.seeds import over_seeds
    from wisepatch.analysis.selection import Rule, choose, parse_rule
    from wisepatch.analysis.sweep_frame import Point, sweep_frame
    from wisepatch.config import EvalConfig, ModelConfig
    from wisepatch.datasets.base import Dataset
    from wisepatch.datasets.image_files import FileSamples
    from wisepatch.datasets.published.readers import open_folders
    from wisepatch.datasets.samples import Annotations, Split, Subset
    from wisepatch.datasets.training_batches import TrainingBatch
    from wisepatch.devices import use_device
    from wisepatch.errors import DataError, MissingDataError, WisepatchError
    from wisepatch.evaluation.answers import Answer
    from wisepatch.evaluation.measurement import evaluate
    from wisepatch.evaluation.prediction import predict_many
    from wisepatch.hookspecs import (
        Choice,
        Measured,
        MergeMethod,
        Metric,
        Objective,
        Parameter,
        Scores,
        SelectionRule,
        hookimpl,
    )
    from wisepatch.models.classifier import Classifier
    from wisepatch.models.clip import Clip, load_clip
    from wisepatch.models.zeroshot_head import zeroshot_head
    from wisepatch.progress import RichProgress
    from wisepatch.reports.page.writing import write_report
    from wisepatch.reports.plots import (
        Look,
        alpha_table,
        calibration_table,
        confusion_table,
        draw_calibration,
        draw_confusion,
        draw_layers,
        draw_over_alpha,
        draw_per_task,
        draw_robustness,
        draw_sweep,
        layer_table,
        load_layers,
        per_task_table,
        robustness_table,
        save_figure,
        sweep_table,
    )
    from wisepatch.reports.publishing import export
    from wisepatch.reports.training_curves import draw_training, load_trainings, training_table
    from wisepatch.store.checkpoints import Checkpoint, Store
    from wisepatch.store.manifests import Recipe
    from wisepatch.store.recipes import load_weights
    from wisepatch.store.results import load as load_results
    from wisepatch.store.results import read as read_results
    from wisepatch.tasks import Task, find_task, find_tasks
    from wisepatch.train_config import TrainConfig
    from wisepatch.training.finetuning import finetune
    from wisepatch.training.objectives.start import TrainingStart
    from wisepatch.weights.methods import interpolate
    from wisepatch.weights.streaming import merge_files
    from wisepatch.workflows.comparing import compare
    from wisepatch.workflows.comparing_trainings import TrainingWay, compare_trainings
    from wisepatch.workflows.greedy_soup import greedy_soup
    from wisepatch.workflows.importing import import_checkpoints
    from wisepatch.workflows.merging import merge
    from wisepatch.workflows.patching import patch, zeroshot
    from wisepatch.workflows.predicting import predict
    from wisepatch.workflows.preflight import preflight
    from wisepatch.workflows.sweep import sweep

__version__: str

_NAMES = {  # module: the public names in it
    "analysis.metrics": "measure",
    "analysis.seeds": "over_seeds",
    "analysis.selection": "Rule choose parse_rule",
    "analysis.sweep_frame": "Point sweep_frame",
    "alphas": "parse_alphas",
    "config": "EvalConfig ModelConfig",
    "datasets.base": "Dataset",
    "datasets.samples": "Annotations Split Subset",
    "datasets.training_batches": "TrainingBatch",
    "datasets.image_files": "FileSamples",
    "devices": "use_device",
    "datasets.published.readers": "open_folders",
    "errors": "DataError MissingDataError WisepatchError",
    "evaluation.answers": "Answer",
    "evaluation.measurement": "evaluate",
    "evaluation.prediction": "predict_many",
    "hookspecs": "Choice Measured MergeMethod Metric Objective Parameter Scores SelectionRule hookimpl",
    "models.classifier": "Classifier",
    "models.clip": "Clip load_clip",
    "models.zeroshot_head": "zeroshot_head",
    "progress": "RichProgress",
    "reports.page.writing": "write_report",
    "analysis.patching_measures": "patching_measures",
    "analysis.robustness": "effective_robustness",
    "reports.plots": (
        "Look alpha_table calibration_table confusion_table draw_calibration draw_confusion draw_layers draw_over_alpha "
        "draw_per_task draw_robustness draw_sweep layer_table load_layers per_task_table robustness_table save_figure sweep_table"
    ),
    "reports.publishing": "export",
    "reports.training_curves": "draw_training load_trainings training_table",
    "store.checkpoints": "Checkpoint Store",
    "store.manifests": "Recipe",
    "store.recipes": "load_weights",
    "store.results": "load_results read_results",
    "tasks": "Task find_task find_tasks",
    "train_config": "TrainConfig",
    "training.finetuning": "finetune",
    "training.objectives.start": "TrainingStart",
    "weights.methods": "interpolate",
    "weights.streaming": "merge_files",
    "workflows.comparing": "compare",
    "workflows.comparing_trainings": "TrainingWay compare_trainings",
    "workflows.greedy_soup": "greedy_soup",
    "workflows.importing": "import_checkpoints",
    "workflows.merging": "merge",
    "workflows.patching": "patch zeroshot",
    "workflows.predicting": "predict",
    "workflows.preflight": "preflight",
    "workflows.sweep": "sweep",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
_CALLED_THERE = {"read_results": "read", "load_results": "load"}
_RENAMED = {  # old name: new name
    "Encoder": "Clip",
    "FinetuneConfig": "TrainConfig",
    "load_encoder": "load_clip",
}

__all__ = [
    "Annotations",
    "Answer",
    "Checkpoint",
    "Choice",
    "Classifier",
    "Clip",
    "DataError",
    "Dataset",
    "EvalConfig",
    "FileSamples",
    "Look",
    "Measured",
    "MergeMethod",
    "Metric",
    "MissingDataError",
    "ModelConfig",
    "Objective",
    "Parameter",
    "Point",
    "Recipe",
    "RichProgress",
    "Rule",
    "Scores",
    "SelectionRule",
    "Split",
    "Store",
    "Subset",
    "Task",
    "TrainConfig",
    "TrainingBatch",
    "TrainingStart",
    "TrainingWay",
    "WisepatchError",
    "__version__",
    "alpha_table",
    "calibration_table",
    "choose",
    "compare",
    "compare_trainings",
    "confusion_table",
    "draw_calibration",
    "draw_confusion",
    "draw_layers",
    "draw_over_alpha",
    "draw_per_task",
    "draw_robustness",
    "draw_sweep",
    "draw_training",
    "effective_robustness",
    "evaluate",
    "export",
    "find_task",
    "find_tasks",
    "finetune",
    "greedy_soup",
    "hookimpl",
    "import_checkpoints",
    "interpolate",
    "layer_table",
    "load_clip",
    "load_layers",
    "load_results",
    "load_trainings",
    "load_weights",
    "measure",
    "merge",
    "merge_files",
    "open_folders",
    "over_seeds",
    "parse_alphas",
    "parse_rule",
    "patch",
    "patching_measures",
    "per_task_table",
    "predict",
    "predict_many",
    "preflight",
    "read_results",
    "robustness_table",
    "save_figure",
    "sweep",
    "sweep_frame",
    "sweep_table",
    "training_table",
    "use_device",
    "write_report",
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
    return getattr(import_module(f"wisepatch.{_HOMES[name]}"), _CALLED_THERE.get(name, name))


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
