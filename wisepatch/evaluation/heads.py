"""The heads of a task for many mixes: trained classifiers, or heads made from text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from wisepatch.evaluation.endpoints import Endpoints, Mix
from wisepatch.models.zeroshot_head import zeroshot_head
from wisepatch.tasks import Task

if TYPE_CHECKING:
    import torch


class Heads:
    """Make the heads of a task: a trained classifier is mixed, a text-derived head comes from the (mixed) text tower."""

    def __init__(self, task: Task, endpoints: Endpoints, note: Callable[[str], object] | None = None) -> None:
        """Prepare the heads of ``task``; none is made yet. ``note`` is told of a head that is damaged or unused."""
        self.task, self.endpoints, self.note = task, endpoints, note
        self.from_text: dict[str, torch.Tensor] = {}

    def prepare(self, mixes: Sequence[Mix]) -> None:
        """Make the heads from text that ``mixes`` need: several processes make them together, whichever images each sees."""
        for mix in mixes:
            if not self.is_trained(mix):
                self.of(mix)

    def is_trained(self, mix: Mix) -> bool:
        """Return whether ``mix`` has a trained head for the task's classes."""
        head = mix.checkpoint.head
        return head is not None and head["classes"] == list(self.task.dataset.head_names)

    def of(self, mix: Mix) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return weight ``(classes, dim)`` and bias ``(classes,)`` of the head under ``mix``."""
        if self.is_trained(mix):
            return mix.classifier()
        dataset, head = self.task.dataset, mix.checkpoint.head
        if head and head["task"] == self.task.name and self.note and mix.text not in self.from_text:
            self.note(
                f"{mix.checkpoint.name} was trained with other class names: {self.task.name} has a head from text here"
            )
        if mix.text not in self.from_text:
            clip, store = mix.clip_for_text(), self.endpoints.store
            weight = zeroshot_head(clip, dataset.head_names, dataset.templates, store, self.note)
            self.from_text[mix.text] = weight.to(self.endpoints.device)
        return self.from_text[mix.text], None
