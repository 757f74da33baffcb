"""A checkpoint out of the store, as a folder that open_clip loads with ``local-dir:FOLDER``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from wisepatch.config import ModelConfig
from wisepatch.errors import ModelError, StoreError, UsageError
from wisepatch.files import check_room, expanded, partial_folder, refused, remove_leftovers, sync_folder, write_durably
from wisepatch.models.clip import describe, save_tokenizer
from wisepatch.models.model_files import CONFIG_NAME
from wisepatch.models.zeroshot_head import NO_TEXT
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.recipes import has_text, weights_size, weights_writer

MODEL_WEIGHTS = "open_clip_model.safetensors"  # the first name that open_clip looks for
HEAD, HEAD_WEIGHTS = "classifier.json", "classifier.safetensors"


@dataclass(frozen=True)
class Exported:
    """Hold what :func:`export` wrote: the folder, and the sha256 of each file of weights."""

    folder: Path
    checkpoint: Checkpoint
    files: dict[str, str]

    def __repr__(self) -> str:
        """Return the folder and the checkpoint."""
        return f"Exported({str(self.folder)!r}, {self.checkpoint!r})"


def export(store: Store, checkpoint: Checkpoint | str, folder: Path | str) -> Exported:
    """Write a checkpoint as ``open_clip_config.json`` and ``open_clip_model.safetensors``; recipes are mixed on the way.

    A trained head is no part of a CLIP: it goes to ``classifier.safetensors`` (``classifier.weight`` ``(classes, dim)`` and
    ``classifier.bias``, over image features of unit length), its task and classes to ``classifier.json``. The weights go from
    file to file in little memory and are verified; the folder is there whole or not at all. Raises :class:`UsageError` for a
    folder that is not empty, :class:`StoreError` for damaged weights and where the folder cannot be written, and
    :class:`ModelError` where the model's configuration or tokenizer cannot be read.
    """
    folder = expanded(folder)
    checkpoint = store.find(checkpoint) if isinstance(checkpoint, str) else checkpoint
    if folder.is_file():
        raise UsageError(f"{folder} is a file, not a folder", "name a new folder")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"the folder {folder} is not empty", "name a new folder")
    if not has_text(store, checkpoint):
        raise ModelError(f"{checkpoint.name} has no text tower, and a CLIP needs one", NO_TEXT)
    model = ModelConfig.from_json(checkpoint.model)
    config = describe(model)
    target = expanded(folder).resolve()
    with refused(str(folder), StoreError, "free space there, or name another folder"):
        if not target.parent.exists():
            target.parent.mkdir(parents=True)
        remove_leftovers(target.parent)
        check_room(target.parent, weights_size(store, checkpoint))
        with partial_folder(target.parent) as unfinished:
            write_durably(unfinished / CONFIG_NAME, json.dumps(config, indent=2).encode() + b"\n")
            if config["model_cfg"].get("text_cfg", {}).get("hf_tokenizer_name"):
                save_tokenizer(model, unfinished)
            files = _write_weights(store, checkpoint, unfinished)
            unfinished.replace(target)
        sync_folder(target.parent)
    return Exported(folder, checkpoint, files)


def _write_weights(store: Store, checkpoint: Checkpoint, folder: Path) -> dict[str, str]:
    """Write the model and the head, which are told apart by the names of their tensors; return the sha256 by file."""
    files = {}
    with weights_writer(store, checkpoint, folder) as write:
        files[MODEL_WEIGHTS] = write(folder / MODEL_WEIGHTS, keep=lambda name: not name.startswith("classifier."))
        if checkpoint.head:
            files[HEAD_WEIGHTS] = write(folder / HEAD_WEIGHTS, keep=lambda name: name.startswith("classifier."))
            write_durably(folder / HEAD, json.dumps(checkpoint.head, indent=2).encode() + b"\n")
    return files
