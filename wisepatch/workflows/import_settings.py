"""Settings of an import: what is said of models from elsewhere beside their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wisepatch.config import ModelConfig
from wisepatch.datasets.splits import CUT
from wisepatch.errors import StoreError, UnknownNameError, UsageError
from wisepatch.models.importing import ACTIVATIONS
from wisepatch.models.sources import Source
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.references import REFERENCES
from wisepatch.task_specs import class_options
from wisepatch.tasks import Task
from wisepatch.training.start import checkpoint_prefix
from wisepatch.weights.state_dicts import HEAD

ZEROSHOT, FINETUNED, START = "zeroshot", "finetuned", "start"  # kinds of checkpoints


@dataclass(frozen=True)
class ImportSettings:
    """Hold what :func:`~wisepatch.workflows.importing.import_checkpoints` is told, with parent and task found.

    Raises :class:`UsageError` where two of them contradict each other.
    """

    name: str = ""
    parent: Checkpoint | None = None
    model: ModelConfig | None = None
    activation: str = ""
    task: Task | None = None
    classnames: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.activation and self.activation not in ACTIVATIONS:
            raise UnknownNameError("activation", self.activation, ACTIVATIONS)
        if self.parent and (self.model or self.activation):
            raise UsageError(
                f"the parent {self.parent.name} already says which model", "leave --model and --activation out"
            )
        if self.model and self.activation:
            raise UsageError(
                f"the model {self.model.model} already says its activation", "leave --activation out, or --model"
            )

    def words(self, files: Sequence[str]) -> list[str]:
        """Return the words of the command that imports ``files``, which go by their names."""
        given = {
            "--name": self.name,
            "--parent": self.parent and self.parent.name,
            "--model": self.model and self.model.model,
            "--pretrained": self.model and self.model.pretrained,
            "--activation": self.activation,
            "--task": self.task and self.task.base_spec,
        }
        options = [word for option, value in given.items() if value for word in (option, value)]
        return [*map(file_name, files), *options, *class_options(self.classnames, self.templates)]

    def trained_on(self) -> dict[str, Any]:
        """Return what a manifest says of the task that the models were fine-tuned on."""
        if not self.task:
            return {}
        return {
            "task": self.task.base_spec, "supported": [], "cut": CUT,
            "classnames": list(self.classnames) or None, "templates": list(self.templates) or None,
        }  # fmt: skip

    def head(self, source: Source) -> dict[str, Any]:
        """Return the task and the class names of a trained head. Raises :class:`UsageError` where they are missing or too many."""
        rows, task = len(source.found.head[f"{HEAD}weight"]), self.task
        classes = self.classnames or (task.dataset.head_names if task else (source.head or {}).get("classes"))
        if not classes:
            reason = f"{source.label} has a head of {rows} classes and does not name them"
            raise UsageError(reason, "name them with --task TASK, or --classnames FILE")
        if len(classes) != rows:
            whose = f"the task {task.name}" if task and not self.classnames else "the list of names"
            raise UsageError(
                f"{source.label} has a head of {rows} classes, and {whose} has {len(classes)}", "name those of the head"
            )
        return {"task": task.name if task else (source.head or {}).get("task") or "", "classes": list(classes)}

    def names(self, store: Store, config: ModelConfig, sources: Sequence[Source]) -> list[str]:
        """Return a name for each. Raises :class:`StoreError` for one that another checkpoint has; the same file may come again."""
        if self.name in REFERENCES:
            raise UsageError(
                f"the name {self.name} stands for the newest checkpoint of a kind", "give another with --name"
            )
        stems = [source.stem for source in sources]
        repeated = Counter(stems)
        stems = [
            f"{Path(each.label).parent.name}-{stem}" if repeated[stem] > 1 else stem
            for each, stem in zip(sources, stems, strict=True)
        ]
        if self.name and len(sources) == 2:
            stems = [ZEROSHOT, FINETUNED]
        names = [f"{self.name or checkpoint_prefix(config)}/{stem}" for stem in stems]
        if self.name and len(sources) == 1:
            names = [self.name]
        known = store.everything()
        for source, chosen in zip(sources, names, strict=True):
            taken = [
                each
                for each in known
                if each.name == chosen and each.config.get("imported", {}).get("sha256") != source.digest
            ]
            if taken or names.count(chosen) > 1:
                by = f"by checkpoint {taken[0].id}" if taken else "twice"
                raise StoreError(f"the name {chosen} is taken {by}", "give another with --name")
        return names


def file_name(label: str) -> str:
    """Return the name of a file or folder without where it lies; a repository stays as it is."""
    return label if ":" in label else Path(label).name
