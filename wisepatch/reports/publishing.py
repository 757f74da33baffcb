"""Export a checkpoint for others: its model in a format they load, a model card with the evidence, and the Hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wisepatch.config import ModelConfig, listed
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.errors import UsageError
from wisepatch.files import expanded, write_durably
from wisepatch.models.clip import hub_name, load_clip
from wisepatch.models.exporting import Head, check_folder, check_format, describe_as, write_model
from wisepatch.models.hub import check_push, push
from wisepatch.models.zeroshot_head import zeroshot_head
from wisepatch.reports.evidence import draw_picture, evidence
from wisepatch.reports.model_card import CARD, PICTURE, model_card
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.recipes import load_weights
from wisepatch.tasks import find_task


@dataclass(frozen=True)
class Exported:
    """Hold what :func:`export` wrote: the folder, the sha256 of each file of weights, the head, and the address on the Hub."""

    folder: Path
    checkpoint: Checkpoint
    files: dict[str, str]
    format: str = "open_clip"
    head: Mapping[str, Any] | None = None
    address: str = ""

    def __repr__(self) -> str:
        """Return the folder and the checkpoint."""
        return f"Exported({str(self.folder)!r}, {self.checkpoint!r})"


def export(
    store: Store,
    checkpoint: Checkpoint | str,
    folder: Path | str,
    *,
    format: str = "open_clip",  # noqa: A002 -- what it is called on the command line, and everywhere
    task: str | None = None,
    classnames: Sequence[str] | None = None,
    templates: Sequence[str] | str | None = None,
    push_to: str | None = None,
    quiet: bool = False,
) -> Exported:
    """Write a checkpoint for open_clip or transformers, or as a classifier, with a model card; push it to the Hub if asked.

    ``open_clip`` holds every model, ``transformers`` what is a ``CLIPModel``. ``classifier`` is the former with a head beside it:
    the trained one, or one from text for ``task`` or ``classnames``. A trained head goes beside the other formats too. The folder
    is there whole or not at all, and stays where the Hub refuses it (``push_to`` is OWNER/NAME; ``quiet`` draws no bars).

    Raises :class:`UsageError` for a folder that is not empty and what the format cannot hold, before anything is written;
    :class:`StoreError` for damaged weights and where the folder cannot be written; :class:`~wisepatch.models.hub.HubError`.
    """
    folder = expanded(folder)
    checkpoint = store.find(checkpoint) if isinstance(checkpoint, str) else checkpoint
    check_format(format)
    check_folder(folder)
    if push_to is not None:
        check_push(push_to)
    describe_as(store, checkpoint, format)
    asked = task or classnames or templates
    if asked and format != "classifier":
        raise UsageError(f"the format {format} has no head of its own", "name classes with --format classifier")
    made = _head(store, checkpoint, task, classnames, listed(templates or ())) if format == "classifier" else None
    about = made.about if made else checkpoint.head
    home = Store(checkpoint.home.parent.parent)
    found, base = evidence(home, checkpoint), hub_name(ModelConfig.from_json(checkpoint.model))

    def beside(unfinished: Path, files: Mapping[str, str]) -> None:
        picture = draw_picture(found, unfinished / PICTURE)
        card = model_card(
            home, checkpoint, format, push_to or folder.resolve().name, files, found, base=base, head=about, picture=picture,
            hub=push_to is not None,
        )  # fmt: skip
        write_durably(unfinished / CARD, card.encode(errors="replace"))

    files = write_model(store, checkpoint, folder, format, head=made, beside=beside)
    exported = partial(Exported, folder, checkpoint, files, format, about)
    if push_to is None:
        return exported()
    return exported(push(folder, push_to, f"{checkpoint.name} ({checkpoint.id}), written by wisepatch", quiet=quiet))


def _head(
    store: Store,
    checkpoint: Checkpoint,
    task: str | None,
    classnames: Sequence[str] | None,
    templates: Sequence[str],
) -> Head | None:
    """Return the head of a classifier that is made from text; ``None`` where the trained head is the one that is asked for."""
    trained = checkpoint.head
    if trained and not (task or classnames):
        return None
    if not (task or classnames or "task" in checkpoint.config):
        raise UsageError(
            f"{checkpoint.name} has no trained head, and was not trained on a task",
            "say which classes with --task, or --classnames",
        )
    name = "classes"
    if not (task or classnames) and len(tasks := checkpoint.config.get("tasks") or ()) > 1:
        reason = f"{checkpoint.name} was patched on several tasks, and a classifier has the classes of one"
        raise UsageError(reason, f"name it with --task: {', '.join(tasks)}")
    if task or not classnames:
        config = checkpoint.config
        known = {} if task else {"classnames": config.get("classnames"), "templates": config.get("templates")}
        dataset = find_task(
            task or config["task"], classnames or known.get("classnames"), templates or known.get("templates")
        ).dataset
        if dataset.label_map:
            raise UsageError(
                f"{dataset.name} is answered by the head of other classes",
                "name the task whose head it is, or --classnames",
            )
        name, classnames, templates = dataset.name, dataset.classes, dataset.templates
    templates = tuple(templates or TEMPLATES["simple"])
    if trained and trained["classes"] == list(classnames or ()):
        return None
    clip = load_clip(ModelConfig.from_json(checkpoint.model), load_weights(store, checkpoint))
    weight = zeroshot_head(clip, classnames or (), templates, store)
    return Head(weight, {"task": name, "classes": list(classnames or ()), "templates": list(templates)})
