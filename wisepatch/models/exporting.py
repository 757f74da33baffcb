"""A checkpoint out of the store, as a folder that open_clip or transformers load, with its trained head or one from text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from wisepatch.config import ModelConfig
from wisepatch.errors import ModelError, StoreError, UnknownNameError, UsageError
from wisepatch.files import (
    check_room,
    expanded,
    partial_folder,
    refused,
    remove_leftovers,
    sha256,
    sync_folder,
    write_durably,
    write_tensors,
)
from wisepatch.models import transformers_format
from wisepatch.models.clip import describe, save_tokenizer
from wisepatch.models.model_files import CONFIG_NAME
from wisepatch.models.zeroshot_head import NO_TEXT
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.parts import check_head
from wisepatch.store.recipes import has_text, load_weights, weights_size, weights_writer

if TYPE_CHECKING:
    import torch

Format = Literal["open_clip", "transformers", "classifier"]
FORMATS = get_args(Format)
MODEL_WEIGHTS = "open_clip_model.safetensors"  # the first name that open_clip looks for
HEAD, HEAD_WEIGHTS = "classifier.json", "classifier.safetensors"
CLASSIFIER = "classifier."


@dataclass(frozen=True)
class Head:
    """Hold a head that is not part of the checkpoint: weight ``(classes, dim)``, and what :data:`HEAD` says of it."""

    weight: torch.Tensor
    about: Mapping[str, Any]


def check_format(name: str) -> None:
    """Raise :class:`UnknownNameError` for a format that is none."""
    if name not in FORMATS:
        raise UnknownNameError("format", name, FORMATS, f"formats are {', '.join(FORMATS)}")


def check_folder(folder: Path) -> None:
    """Raise :class:`UsageError` for a file, and for a folder that is not empty."""
    with refused(str(folder), StoreError, "name another folder"):
        if folder.is_file():
            raise UsageError(f"{folder} is a file, not a folder", "name a new folder")
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"the folder {folder} is not empty", "name a new folder")


def describe_as(store: Store, checkpoint: Checkpoint, kind: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the model's description for open_clip, and for transformers where that is asked for.

    Raises :class:`UsageError` that names what the format cannot hold, :class:`ModelError` where the model's settings cannot be
    read, and for a checkpoint without a text tower.
    """
    if not has_text(store, checkpoint):
        raise ModelError(f"{checkpoint.name} has no text tower, and a CLIP needs one", NO_TEXT)
    model = ModelConfig.from_json(checkpoint.model)
    description = describe(model)
    return description, transformers_format.clip_config(description, str(model)) if kind == "transformers" else None


def write_model(
    store: Store,
    checkpoint: Checkpoint,
    folder: Path | str,
    kind: str = "open_clip",
    *,
    head: Head | None = None,
    beside: Callable[[Path, Mapping[str, str]], None] | None = None,
) -> dict[str, str]:
    """Write a checkpoint as open_clip or transformers load it; return the sha256 of each file of weights. Recipes are mixed.

    The head is no part of a CLIP: it goes to ``classifier.safetensors`` (``classifier.weight`` ``(classes, dim)`` and
    ``classifier.bias``, over image features of unit length), its task and classes to ``classifier.json``; ``head`` is written where
    the checkpoint has none. ``beside`` writes further files, given the folder and the hashes. The folder is there whole or not at
    all, and its weights are verified. Raises as :func:`check_folder` and :func:`describe_as` do, and :class:`StoreError` for
    damaged weights and where the folder cannot be written.
    """
    from safetensors import safe_open

    folder = expanded(folder)
    check_format(kind)
    check_folder(folder)
    description, settings = describe_as(store, checkpoint, kind)
    target = folder.resolve()
    with refused(str(folder), StoreError, "free space there, or name another folder"):
        if not target.parent.exists():
            target.parent.mkdir(parents=True)
        remove_leftovers(target.parent)
        check_room(target.parent, weights_size(store, checkpoint))
        with partial_folder(target.parent) as unfinished:
            if settings:
                transformers_format.write_settings(unfinished, settings, description["preprocess_cfg"])
                files = _write_for_transformers(settings, store, checkpoint, unfinished)
            else:
                write_durably(unfinished / CONFIG_NAME, json.dumps(description, indent=2).encode() + b"\n")
                if description["model_cfg"].get("text_cfg", {}).get("hf_tokenizer_name"):
                    save_tokenizer(ModelConfig.from_json(checkpoint.model), unfinished)
                files = _write_for_open_clip(store, checkpoint, unfinished)
            if checkpoint.head:
                with safe_open(unfinished / HEAD_WEIGHTS, "pt") as file:
                    check_head(checkpoint, file.get_slice(f"{CLASSIFIER}weight").get_shape()[0])
            if head:
                bias = head.weight.new_zeros(len(head.weight))
                write_tensors(
                    unfinished / HEAD_WEIGHTS, {f"{CLASSIFIER}weight": head.weight, f"{CLASSIFIER}bias": bias}
                )
                files[HEAD_WEIGHTS] = sha256(unfinished / HEAD_WEIGHTS)
            if about := head.about if head else checkpoint.head:
                write_durably(unfinished / HEAD, json.dumps(dict(about), indent=2).encode() + b"\n")
            if beside:
                beside(unfinished, files)
            check_folder(folder)  # another export may have been faster
            unfinished.replace(target)
        sync_folder(target.parent)
    return files


def _write_for_open_clip(store: Store, checkpoint: Checkpoint, folder: Path) -> dict[str, str]:
    """Write the model and the trained head from file to file, told apart by the names of their tensors."""
    files = {}
    with weights_writer(store, checkpoint, folder) as write:
        files[MODEL_WEIGHTS] = write(folder / MODEL_WEIGHTS, keep=lambda name: not name.startswith(CLASSIFIER))
        if checkpoint.head:
            files[HEAD_WEIGHTS] = write(folder / HEAD_WEIGHTS, keep=lambda name: name.startswith(CLASSIFIER))
    return files


def _write_for_transformers(
    settings: dict[str, Any], store: Store, checkpoint: Checkpoint, folder: Path
) -> dict[str, str]:
    """Write the model under the names of transformers, and the trained head; all of it is in memory meanwhile."""
    weights = load_weights(store, checkpoint)
    head = {name: tensor for name, tensor in weights.items() if name.startswith(CLASSIFIER)}
    tensors = transformers_format.clip_tensors({name: each for name, each in weights.items() if name not in head})
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values() if tensor.ndim > 1}
    settings["dtype"] = kinds.pop() if len(kinds) == 1 else "float32"
    write_durably(folder / transformers_format.CONFIG, json.dumps(settings, indent=2).encode() + b"\n")
    files = {}
    for name, content in ((transformers_format.WEIGHTS, tensors), (HEAD_WEIGHTS, head)):
        if content:
            write_tensors(folder / name, content)
            files[name] = sha256(folder / name)
    return files
