"""Measure the diagonal Fisher information of both endpoints: how much each parameter matters to the predictions.

``F = E_x E_{y ~ p(y|x)} (d log p(y|x) / d theta)^2`` over training images ``x`` (Matena and Raffel 2021, arXiv 2111.09832, and
WiSE-FT's code). The label is drawn from the model's own prediction; the images are prepared as in evaluation, and the model
runs in fp32 (convolutions on a GPU in TF32, as PyTorch has it unless told otherwise).
:func:`wisepatch.weights.interpolation.fisher` weighs the endpoints with it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from wisepatch.config import ModelConfig
from wisepatch.datasets.loading import same_for_all, worker_count
from wisepatch.datasets.samples import Subset
from wisepatch.devices import device as this_device
from wisepatch.errors import ModelError, UsageError
from wisepatch.files import expanded, hash_tensors
from wisepatch.models.classifier import Classifier
from wisepatch.models.clip import load_clip
from wisepatch.models.zeroshot_head import zeroshot_head
from wisepatch.process_group import made_together
from wisepatch.progress import Progress, Silent
from wisepatch.ranks import size as process_count
from wisepatch.store.cache import FISHER_ENTRIES
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.recipes import load_weights
from wisepatch.tasks import Task
from wisepatch.training.squared_gradients import MAX_BATCH_IMAGES, diagonal
from wisepatch.weights.methods import check_same
from wisepatch.weights.state_dicts import read_state_dict

Tensors = Mapping[str, torch.Tensor]

EXAMPLES = 1000  # images, unless another number is given
HEAD_PREFIX = "classifier."  # of the names of a trained head in a checkpoint


def line_fishers(
    start: Checkpoint,
    end: Checkpoint,
    task: Task,
    store: Store,
    data: Path,
    *,
    examples: int = EXAMPLES,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure the Fisher information of both endpoints on ``task``, or read it from the store; return the recipe's parameter.

    That is ``{"files": [[hash, sha256] of start, of end], "examples": n, "seed": seed}``. Of the training split ``examples`` images
    are drawn (all, where it has no more), the same for both. Only tensors that differ between the endpoints are measured: the
    image tower, the head, or both. Raises :class:`ModelError` where a gradient is not finite, and the errors of data, model and
    store.
    """
    if examples < 1:
        raise UsageError(f"{examples} images have no Fisher information", "--fisher-examples takes 1 or more")
    weights = [load_weights(store, each) for each in (start, end)]
    check_same(*weights)
    changed = {name for name, tensor in weights[0].items() if not torch.equal(tensor, weights[1][name])}
    entries = [
        endpoint_fisher(checkpoint, theta, changed, task, store, data, examples, seed, workers, progress or Silent())
        for checkpoint, theta in zip((start, end), weights, strict=True)
    ]
    return {"files": [entry["file"] for entry in entries], "examples": entries[0]["examples"], "seed": seed}


def given_fishers(files: Sequence[Path | str], start: Checkpoint, end: Checkpoint, store: Store) -> dict[str, Any]:
    """Take the Fisher information of both endpoints from files, ours or WiSE-FT's; return the recipe's parameter.

    A file is safetensors or a pickled dict of tensors, under the names of a checkpoint or of WiSE-FT's ``ImageClassifier``;
    what is not in it is mixed linearly. Raises :class:`UsageError` for another number of files than two, :class:`ModelError`
    for a file that is no Fisher information of this model.
    """
    if len(files) != 2:
        raise UsageError(f"{len(files)} files of Fisher information, and both endpoints have one", "--fisher F0,F1")
    entries = []
    for path, checkpoint in zip(map(expanded, files), (start, end), strict=True):
        weights = load_weights(store, checkpoint)
        fisher = {name: each for name, each in read_state_dict(path).tensors.items() if name in weights}
        if not fisher:
            raise ModelError(
                f"{path} has no tensor of {checkpoint.name}", "give the Fisher information of this very model"
            )
        for name, each in fisher.items():
            if each.shape != weights[name].shape:
                reason = f"{path}: {name} is {list(each.shape)}, and in {checkpoint.name} {list(weights[name].shape)}"
                raise ModelError(reason, "give the Fisher information of this very model")
            if not (torch.isfinite(each).all() and (each >= 0).all()):
                raise ModelError(f"{path}: {name} holds numbers that no mean of squares is", "measure it again")
        key = hashlib.sha256(f"given {hash_tensors(fisher)}".encode()).hexdigest()[:32]
        about = {"checkpoint": checkpoint.id, "file": path.name}
        made_together(partial(store.cache.tensors, FISHER_ENTRIES, key, about=about), partial(dict, fisher))
        entries.append([key, store.cache.sha256(FISHER_ENTRIES, key)])
    return {"files": entries}


def endpoint_fisher(
    checkpoint: Checkpoint,
    theta: Tensors,
    changed: Collection[str],
    task: Task,
    store: Store,
    data: Path,
    examples: int,
    seed: int,
    workers: int | None,
    progress: Progress,
) -> dict[str, Any]:
    """Measure the Fisher information of one endpoint for the tensors ``changed``, or read it; return the entry of the cache."""
    device = this_device()
    clip = load_clip(ModelConfig.from_json(checkpoint.model), theta)
    head, bias = theta.get(f"{HEAD_PREFIX}weight"), theta.get(f"{HEAD_PREFIX}bias")
    if head is None:
        head = zeroshot_head(clip, task.dataset.head_names, task.dataset.templates, store, progress.note)
    classifier = Classifier(clip.model.visual, head, bias)
    names = [name for name, _ in classifier.named_parameters() if _name_in_checkpoint(name) in changed]
    split = same_for_all(task.dataset.split("train", data, clip.pixels))
    count, generator = min(examples, len(split)), torch.Generator().manual_seed(seed)
    chosen = sorted(torch.randperm(len(split), generator=generator)[:count].tolist())
    uniforms = torch.rand(count, generator=generator)
    parts = (
        hash_tensors(classifier.state_dict()), str(classifier), without_addresses(str(clip.transform)), split.fingerprint(),
        json.dumps([names, count, seed]),
    )  # fmt: skip
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    label, cached = f"Fisher information of {checkpoint.name}", store.cache.find(FISHER_ENTRIES, key)
    progress.note(f"{label}: {count} of {len(split)} training images{' (from the store)' if cached else ''}")

    def measure() -> Tensors:
        progress.start(label, count // process_count())
        fisher = diagonal(
            classifier.to(device), names, Subset(split, chosen), uniforms, prepare=clip.normalise,
            workers=worker_count(workers, count, clip.batch_bytes(MAX_BATCH_IMAGES)), progress=progress,
        )  # fmt: skip
        progress.finish()
        if not all(torch.isfinite(tensor).all() for tensor in fisher.values()):
            raise ModelError(f"the {label} is not finite", "mix with --method linear, or train with a lower --lr")
        return {_name_in_checkpoint(name): tensor for name, tensor in fisher.items()}

    about = {"checkpoint": checkpoint.id, "task": task.name, "examples": count, "of": len(split), "seed": seed}
    waiting = f"another process measures the {label}: waiting for it"
    made_together(
        lambda make: store.cache.tensors(
            FISHER_ENTRIES, key, make, lambda: progress.note(waiting), note=progress.note, about=about
        ),
        measure,
    )
    return about | {"file": [key, store.cache.sha256(FISHER_ENTRIES, key)]}


def without_addresses(text: str) -> str:
    """Remove where functions lie in memory, which differs from process to process (in the preprocessing of open_clip 3.2)."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _name_in_checkpoint(name: str) -> str:
    return name if name.startswith("visual.") else f"{HEAD_PREFIX}{name}"
