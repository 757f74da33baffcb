"""Lines: the two ends that checkpoints are mixed from, and what each mix says of a batch.

Of each line only the two ends are held in memory (and their Fisher information, where mixes are weighed by it), and one working
copy of the image tower into which every mix is written in place; text towers are not carried along. What is held does not grow
with the number of alphas (but for a head an alpha where the text towers of the two ends differ).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows

from wisepatch.config import ModelConfig
from wisepatch.errors import UsageError
from wisepatch.models.clip import load_clip
from wisepatch.models.head import zeroshot_head
from wisepatch.weights.interpolation import check_same, is_ordinary, load_weights, mix, pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from wisepatch.models.clip import Clip
    from wisepatch.models.tower import Tower
    from wisepatch.plugins import Task
    from wisepatch.store.checkpoints import Checkpoint, Store

    Tensors = Mapping[str, torch.Tensor]


@dataclass
class Mixes:
    """The two ends that some checkpoints are mixed from, on the device, image tower and trained head alone."""

    clip: Clip
    start: dict[str, torch.Tensor]
    end: dict[str, torch.Tensor]
    text_differs: bool
    parents: tuple[Checkpoint, Checkpoint]
    members: list[tuple[int, float]] = field(default_factory=list)  # (index of the checkpoint, alpha)
    fishers: tuple[Tensors, Tensors] | None = None  # of the two ends, by name, where mixes are weighed by them
    ordinary: dict[str, bool] = field(default_factory=dict)  # of the start, by name, as far as known

    def mixed(self, name: str, alpha: float, out: torch.Tensor | None = None) -> torch.Tensor:
        """The tensor ``name`` at ``alpha``, written into ``out`` where given."""
        if name not in self.ordinary:
            self.ordinary[name] = is_ordinary(self.start[name])
        fishers = pair(self.fishers, name)
        return mix(self.start[name], self.end[name], alpha, out, fishers, ordinary=self.ordinary[name])

    @cached_property
    def is_fixed(self) -> bool:
        """Whether the image tower is the same at both ends, and so at every alpha."""
        return _same(_tower(self.start), _tower(self.end))

    @property
    def is_linear(self) -> bool:
        """Whether this is the line of a linear classifier: two ends that differ in their heads alone."""
        return self.is_fixed and self.parents[0].id != self.parents[1].id

    def shares_tower(self, other: Mixes) -> bool:
        """Whether both lines begin with the same image tower."""
        return other is self or _same(_tower(self.start), _tower(other.start))


def gather_mixes(checkpoints: Sequence[Checkpoint], store: Store, device: torch.device) -> list[Mixes]:
    """Group checkpoints by the two ends they are mixed from; each end is read once."""
    if not checkpoints:
        raise UsageError("no checkpoint to evaluate", "name at least one")
    encoders: dict[str, Clip] = {}
    lines: dict[tuple[str, str, str], Mixes] = {}
    # The longest lines first, so that an end that is also asked for alone joins its line.
    ends = [ends_of(checkpoint, store) for checkpoint in checkpoints]
    distinct = {each.id: each for start, end, _ in ends for each in (start, end)}
    with ThreadPoolExecutor(2) as pool:  # verifying a file keeps one core busy; two files are in memory anyway
        read = dict(zip(distinct, pool.map(partial(load_weights, store), distinct.values()), strict=True))
    for index in sorted(range(len(ends)), key=lambda i: ends[i][0].id == ends[i][1].id):
        start, end, alpha = ends[index]
        joined = next((key for key in lines if start.id == end.id and start.id in key), None)
        if joined:
            lines[joined].members.append((index, float(joined.index(start.id))))
            continue
        key = (start.id, end.id, str(_fishers_of(checkpoints[index])))
        if key not in lines:
            if start.id != end.id:
                check_same(read[start.id], read[end.id])
            if start.id not in encoders:
                encoders[start.id] = load_clip(ModelConfig.from_json(start.model), read[start.id])
                encoders[start.id].model.visual.to(device)
            lines[key] = Mixes(
                encoders[start.id],
                _tower_side(read[start.id], device),
                _tower_side(read[end.id], device),
                not _same(_text_side(read[start.id]), _text_side(read[end.id])),
                (start, end),
                fishers=_to_device(store.read_fishers(checkpoints[index]), device),
            )
        lines[key].members.append((index, alpha))
    for line in lines.values():
        line.members.sort()
    return list(lines.values())


def ends_of(checkpoint: Checkpoint, store: Store) -> tuple[Checkpoint, Checkpoint, float]:
    """The two ends that a checkpoint is mixed from, and its alpha; of one with weights itself twice, and 0."""
    if not checkpoint.is_recipe:
        return checkpoint, checkpoint, 0.0
    start, end = store.parents(checkpoint)
    assert checkpoint.alpha is not None
    return start, end, checkpoint.alpha


def _fishers_of(checkpoint: Checkpoint) -> Any:
    """What tells a mix that is weighed by Fisher information from others of the same ends."""
    return checkpoint.recipe.fisher_files if checkpoint.is_recipe and checkpoint.recipe else ()


def _to_device(fishers: tuple[Tensors, ...] | None, device: torch.device) -> tuple[Tensors, Tensors] | None:
    return (_tower_side(fishers[0], device), _tower_side(fishers[1], device)) if fishers else None


def _tower_side(tensors: Tensors, device: torch.device) -> dict[str, torch.Tensor]:
    return {k: v.to(device) for k, v in tensors.items() if k.startswith(("visual.", "classifier."))}


def _tower(tensors: Tensors) -> Tensors:
    return {k: v for k, v in tensors.items() if k.startswith("visual.")}


def _text_side(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {k: v for k, v in tensors.items() if not k.startswith(("visual.", "classifier."))}


def _same(ours: Tensors, theirs: Tensors) -> bool:
    """Whether every tensor of one end is the other's."""
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def set_weights(module: torch.nn.Module, line: Mixes, alpha: float, within: str = "") -> None:
    """Write the mix at ``alpha`` into the working copy of the image tower, in place, or into its part ``within``."""
    for name, tensor in module.state_dict(prefix=within, keep_vars=True).items():
        if tensor.dtype == line.start[f"visual.{name}"].dtype:
            line.mixed(f"visual.{name}", alpha, out=tensor.data)
        else:  # mixed in fp32, whatever the tower computes in
            tensor.data.copy_(line.mixed(f"visual.{name}", alpha))


class Heads:
    """The head of a task at any alpha: a trained classifier is mixed, a text-derived one comes from the (mixed) text tower."""

    def __init__(self, line: Mixes, task: Task, store: Store, note: Callable[[str], object] | None = None) -> None:
        """Prepare the head of ``task`` for a line."""
        self.line, self.task, self.store, self.note = line, task, store, note
        trained = line.parents[1].head
        self.trained = trained is not None and trained["classes"] == list(task.dataset.head_names)
        self.fixed: dict[float, torch.Tensor] = {}

    def at(self, alpha: float) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight ``(classes, dim)`` and bias ``(classes,)`` at ``alpha``."""
        line = self.line
        if self.trained:
            return line.mixed("classifier.weight", alpha), line.mixed("classifier.bias", alpha)
        key = alpha if line.text_differs else 0.0
        if key not in self.fixed:
            clip = line.clip
            if line.text_differs:
                ends = [load_weights(self.store, parent) for parent in line.parents]
                mixed = {k: mix(v, ends[1][k], alpha) for k, v in ends[0].items()}
                clip = load_clip(clip.config, mixed)
            classes, templates = self.task.dataset.head_names, self.task.dataset.templates
            device = next(line.clip.model.visual.parameters()).device
            self.fixed[key] = zeroshot_head(clip, classes, templates, self.store, self.note).to(device)
        return self.fixed[key], None


def answers(
    line: Mixes, tower: Tower | None, batches: Sequence[torch.Tensor], heads: Sequence[Heads]
) -> Iterator[tuple[int, int, int, torch.Tensor]]:
    """Yield ``(index of the checkpoint, number of the batch, number of the head, logits (n, classes))`` for all of a line.

    All heads share the features. Without a ``tower`` the batches are features ``(n, dim)``. Where the image tower is the same
    at every alpha, images pass it once; a trained head is linear in alpha then (unless it is weighed by Fisher information),
    and so are its logits: two products give those of every alpha.
    """
    if not line.is_fixed:
        assert tower is not None
        stems = _stems(line, tower, batches)
        for index, alpha in line.members:
            set_weights(tower.visual, line, alpha)
            at = [head.at(alpha) for head in heads]
            for part, images in enumerate(batches):
                seen = tower.features(torch.lerp(*stems[part], alpha) if stems else images)
                for number, (weight, bias) in enumerate(at):
                    yield index, part, number, F.linear(seen, weight, bias)
        return
    if tower is not None:
        set_weights(tower.visual, line, 0)
    for part, images in enumerate(batches):
        seen = images if tower is None else tower.features(images)
        for number, head in enumerate(heads):
            if head.trained and not line.fishers:
                start, end = (F.linear(seen, *head.at(alpha)) for alpha in (0.0, 1.0))
                for index, alpha in line.members:
                    yield index, part, number, mix(start, end, alpha)
            else:
                for index, alpha in line.members:
                    yield index, part, number, F.linear(seen, *head.at(alpha))


def _stems(line: Mixes, tower: Tower, batches: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What the first layer makes of each batch at both ends, where its mixes are used often enough; or nothing."""
    if tower.stem is None or line.fishers or len(line.members) <= 2:
        return []
    found = []
    for alpha in (0.0, 1.0):
        set_weights(tower.stem, line, alpha, "conv1.")
        found.append([tower.patches(images) for images in batches])
    return list(zip(*found, strict=True))


def most_likely(said: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The class with the largest of some logits ``(n, classes)``, and its probability, ``(n,)`` each."""
    answer = said.argmax(1, keepdim=True)
    sure = said.float().softmax(1).gather(1, answer)
    return answer.flatten(), sure.flatten()


def merged(
    label_map: Sequence[Sequence[int]], device: torch.device | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function from the head's logits ``(n, head classes)`` to the task's ``(n, classes)``: the largest of those that merge.

    Without ``merges`` it changes nothing; a class that none merge into has ``-inf`` (WiSE-FT section 3, ObjectNet and others).
    """
    if not label_map:
        return lambda said: said
    most = max(len(indices) for indices in label_map)
    columns = torch.tensor([[*indices, *[-1] * (most - len(indices))] for indices in label_map], device=device)

    def merge(said: torch.Tensor) -> torch.Tensor:
        return said[:, columns].masked_fill(columns < 0, -torch.inf).amax(-1)

    return merge
