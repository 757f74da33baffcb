"""Patch CLIP-like models: fine-tune on one task, mix the weights from before and after, keep the rest.

``import wisepatch as wp`` gives everything that the command line does; each name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wisepatch.config import FinetuneConfig, ModelConfig, parse_alphas
    from wisepatch.datasets.base import Dataset, Split
    from wisepatch.encoder import Encoder, load_encoder
    from wisepatch.errors import WisepatchError
    from wisepatch.evaluation import evaluate
    from wisepatch.exporting import export
    from wisepatch.finetuning import finetune
    from wisepatch.head import Classifier, zeroshot_head
    from wisepatch.hookspecs import hookimpl
    from wisepatch.interpolation import interpolate, load_weights
    from wisepatch.merging import merge_files
    from wisepatch.metrics import measure
    from wisepatch.patching import patch, sweep, zeroshot
    from wisepatch.plotting import draw_sweep, save_figure, sweep_table
    from wisepatch.plugins import Task, find_task, find_tasks
    from wisepatch.prediction import predict
    from wisepatch.results import read as read_results
    from wisepatch.selection import Point, Rule, choose, parse_rule
    from wisepatch.store import Checkpoint, Store

__version__: str

_HOMES = {
    "Checkpoint": "store", "Classifier": "head", "Dataset": "datasets.base", "Encoder": "encoder",
    "FinetuneConfig": "config", "ModelConfig": "config", "Point": "selection", "Rule": "selection",
    "Split": "datasets.base", "Store": "store", "Task": "plugins", "WisepatchError": "errors", "choose": "selection",
    "draw_sweep": "plotting", "evaluate": "evaluation", "export": "exporting", "find_task": "plugins", "find_tasks": "plugins",
    "finetune": "finetuning", "hookimpl": "hookspecs", "interpolate": "interpolation", "load_encoder": "encoder",
    "load_weights": "interpolation", "measure": "metrics", "merge_files": "merging", "parse_alphas": "config",
    "parse_rule": "selection", "patch": "patching", "predict": "prediction", "read_results": "results.read",
    "save_figure": "plotting", "sweep": "patching", "sweep_table": "plotting", "zeroshot": "patching", "zeroshot_head": "head",
}  # fmt: skip

__all__ = [
    "Checkpoint",
    "Classifier",
    "Dataset",
    "Encoder",
    "FinetuneConfig",
    "ModelConfig",
    "Point",
    "Rule",
    "Split",
    "Store",
    "Task",
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
    "load_encoder",
    "load_weights",
    "measure",
    "merge_files",
    "parse_alphas",
    "parse_rule",
    "patch",
    "predict",
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
    if name not in _HOMES:
        raise AttributeError(f"module 'wisepatch' has no attribute {name!r}")
    home, _, other = _HOMES[name].removeprefix("datasets.").partition(".")
    module = import_module(f"wisepatch.{'datasets.' if _HOMES[name].startswith('datasets.') else ''}{home}")
    return getattr(module, other or name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
