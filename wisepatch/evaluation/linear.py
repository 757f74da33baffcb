"""Linear classifiers from what is kept of them: a sweep over a frozen encoder needs its features and two heads, and no model.

Logits are linear in alpha where only the head is mixed (WiSE-FT's linear classifiers): two products give every alpha. What a first
sweep has read and verified is kept beside the features, under the hashes of both ends.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows

from wisepatch.config import DEMO, FISHER, ModelConfig
from wisepatch.evaluation.endpoints import ends_of, merged, most_likely
from wisepatch.evaluation.features import HELD, features_key, precision_of
from wisepatch.files import hash_tensors
from wisepatch.models.clip import describe
from wisepatch.store.cache import read_tensors, versions
from wisepatch.weights.interpolation import mix

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wisepatch.config import Speed
    from wisepatch.datasets.base import Split
    from wisepatch.evaluation.endpoints import Mixes
    from wisepatch.plugins import Task
    from wisepatch.store.checkpoints import Checkpoint, Store

    Found = tuple[Task, Split, NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def remember(line: Mixes, tower: str, store: Store) -> None:
    """Keep the two heads of a linear line, and the key of its image tower's features."""
    name = _digest(*line.parents)
    if "classifier.weight" in line.start and not line.fishers and name and not _kept(store, name):
        heads = {
            f"{part} {alpha}": end[f"classifier.{part}"].cpu()
            for alpha, end in enumerate((line.start, line.end)) for part in ("weight", "bias")
        }  # fmt: skip
        keys = {"tower": tower, "hash": hash_tensors(heads)}
        tensors = heads | {k: torch.tensor(list(bytes.fromhex(v)), dtype=torch.uint8) for k, v in keys.items()}
        store.cache.tensors("features", name, lambda: tensors)


def _kept(store: Store, name: str) -> tuple[dict[str, torch.Tensor], str] | None:
    """The heads and the key of the tower that were kept; ``None`` where there are none, or they are damaged."""
    folder = store.cache.find("features", name)
    if folder is None:
        return None
    found = read_tensors(folder)
    tower, expected = (bytes(found.pop(key).tolist()).hex() for key in ("tower", "hash"))
    # As other tensors lie in memory: where they begin decides about the last bit of a product.
    heads = {key: tensor.clone() for key, tensor in found.items()}
    return (heads, tower) if hash_tensors(heads) == expected else None


def recall(
    checkpoints: Sequence[Checkpoint],
    tasks: Sequence[Task],
    store: Store,
    data: Path,
    split: str,
    speed: Speed,
    device: torch.device,
) -> Iterator[Found] | None:
    """Each task, its split, labels ``(n,)``, and predictions and confidences ``(checkpoints, n)``; ``None`` if a model is needed.

    That is where the checkpoints are not of one linear line, a task is not that of its heads, or something is not kept.
    """
    ends = [ends_of(checkpoint, store) for checkpoint in checkpoints]
    lines = {(one.id, other.id): (one, other) for one, other, _ in ends if one.id != other.id}
    if len(lines) != 1 or any(checkpoint.method == FISHER for checkpoint in checkpoints) or speed.get("fast_decode"):
        return None
    ((start, end),) = lines.values()
    alphas = [alpha if one.id != other.id else {start.id: 0.0, end.id: 1.0}.get(one.id) for one, other, alpha in ends]
    name, classes = _digest(start, end), end.head["classes"] if end.head else None
    if not name or None in alphas or any(classes != list(task.dataset.head_names) for task in tasks):
        return None
    kept = _kept(store, name)
    if kept is None:
        return None
    precision = precision_of(speed.get("mixed_precision", "no"))
    opened = []
    for task in tasks:
        images = task.dataset.split(task.split or split, data)
        folder = store.cache.find("features", features_key(kept[1], precision, images))
        if folder is None:
            return None
        opened.append((task, images, read_tensors(folder)))
    return _swept(opened, [alpha for alpha in alphas if alpha is not None], kept[0], device)


@torch.inference_mode()
def _swept(
    opened: Sequence[tuple[Task, Split, dict[str, torch.Tensor]]],
    alphas: Sequence[float],
    heads: dict[str, torch.Tensor],
    device: torch.device,
) -> Iterator[Found]:
    (w0, b0), (w1, b1) = ((heads[f"weight {end}"].to(device), heads[f"bias {end}"].to(device)) for end in (0, 1))
    for task, images, features in opened:
        choice = merged(task.dataset.label_map, device)
        predicted = np.empty((len(alphas), len(images)), np.int64)
        confidence = np.empty((len(alphas), len(images)), np.float32)
        done = 0
        for batch in map(torch.clone, features["features"].to(device).split(HELD)):
            place = slice(done, done := done + len(batch))
            first, last = F.linear(batch, w0, b0), F.linear(batch, w1, b1)
            for index, alpha in enumerate(alphas):
                answer, sure = most_likely(choice(mix(first, last, alpha)))
                predicted[index, place], confidence[index, place] = answer.cpu().numpy(), sure.cpu().numpy()
        yield task, images, features["labels"].numpy(), predicted, confidence


def _digest(start: Checkpoint, end: Checkpoint) -> str:
    """What the heads of two ends are kept as; empty where their files, or the design of their model, cannot be seen."""
    model = ModelConfig.from_json(start.model)
    if not all(each.files and all((each.home / file).is_file() for file in each.files) for each in (start, end)):
        return ""
    if model.model.startswith("hf-hub:"):
        return ""
    local = model.model.lower() == DEMO or model.model.startswith("local-dir:")
    said = json.dumps(
        [start.id, end.id, start.model, describe(model) if local else "", versions("torch", "open_clip_torch")],
        sort_keys=True,
    )
    return f"heads-{hashlib.sha256(said.encode()).hexdigest()[:32]}"
