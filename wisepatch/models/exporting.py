"""A checkpoint out of the store, as a folder that open_clip loads with ``local-dir:FOLDER``."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wisepatch.config import ModelConfig
from wisepatch.errors import StoreError, UsageError
from wisepatch.files import PARTIAL, refused, sync_folder, write_durably
from wisepatch.models.clip import CONFIG_NAME, describe, save_tokenizer
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.recipes import weights_writer

MODEL_WEIGHTS = "open_clip_model.safetensors"  # the first name that open_clip looks for
HEAD, HEAD_WEIGHTS = "classifier.json", "classifier.safetensors"
HEAD_PREFIX = "classifier."


@dataclass(frozen=True)
class Exported:
    """What :func:`export` wrote: the folder, and the sha256 of each file of weights."""

    folder: Path
    checkpoint: Checkpoint
    files: dict[str, str]


def export(store: Store, checkpoint: Checkpoint, folder: Path) -> Exported:
    """Write a checkpoint as ``open_clip_config.json`` and ``open_clip_model.safetensors``; recipes are mixed on the way.

    A trained head is no part of a CLIP: it goes to ``classifier.safetensors`` (``classifier.weight`` ``(classes, dim)`` and
    ``classifier.bias``, over image features of unit length), its task and classes to ``classifier.json``. The weights go from
    file to file in little memory and are verified; the folder is there whole or not at all. Raises :class:`UsageError` for a
    folder that is not empty, :class:`StoreError` for damaged weights and where the folder cannot be written, and
    :class:`ModelError` where the model's configuration or tokenizer cannot be read.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        reason = f"the folder {folder} is not empty" if folder.is_dir() else f"{folder} is a file, not a folder"
        raise UsageError(reason, "name a new folder")
    model = ModelConfig.from_json(checkpoint.model)
    config = describe(model)
    target = folder.expanduser().resolve()
    unfinished = target.with_name(f"{PARTIAL}{os.getpid()}-{secrets.token_hex(4)}-{target.name}")
    with refused(str(folder), StoreError, "free space there, or name another folder"):
        unfinished.mkdir(parents=True)
        try:
            files = _write(store, checkpoint, config, unfinished)
            unfinished.replace(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        sync_folder(target.parent)
    return Exported(folder, checkpoint, files)


def _write(store: Store, checkpoint: Checkpoint, config: dict[str, Any], folder: Path) -> dict[str, str]:
    """Write all files into ``folder``; return the sha256 of those with weights."""
    write_durably(folder / CONFIG_NAME, json.dumps(config, indent=2).encode() + b"\n")
    if config["model_cfg"].get("text_cfg", {}).get("hf_tokenizer_name"):
        save_tokenizer(ModelConfig.from_json(checkpoint.model), folder)
    files = {}
    with weights_writer(store, checkpoint, folder) as write:
        files[MODEL_WEIGHTS] = write(folder / MODEL_WEIGHTS, keep=_is_of_the_model)
        if checkpoint.head:
            files[HEAD_WEIGHTS] = write(folder / HEAD_WEIGHTS, keep=lambda name: not _is_of_the_model(name))
            write_durably(folder / HEAD, json.dumps(checkpoint.head, indent=2).encode() + b"\n")
    return files


def _is_of_the_model(name: str) -> bool:
    return not name.startswith(HEAD_PREFIX)
