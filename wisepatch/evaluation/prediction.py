"""Predict with many checkpoints in one pass: a batch is decoded once and seen by every checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wisepatch.config import EvalConfig, ModelConfig
from wisepatch.datasets.loading import same_for_all
from wisepatch.datasets.samples import Annotations, Split, images_of, labels_of
from wisepatch.devices import device as this_device
from wisepatch.evaluation.endpoints import Endpoints, check_named
from wisepatch.evaluation.output_ensembles import is_ensemble
from wisepatch.evaluation.passes import new_pass
from wisepatch.files import expanded
from wisepatch.hookspecs import Scores
from wisepatch.process_group import check_seen, on_main
from wisepatch.progress import Progress, Silent
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.tasks import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictions:
    """Hold the answers of some checkpoints to one split.

    ``predicted`` and the fields of ``scores`` are ``(checkpoints, n)``, ``labels`` is ``(n,)``; ``image_ids`` names the images.
    ``recalled`` holds the ids of checkpoints whose answers the store has already, ``images`` the name of the task whose images
    these are, where another of those that are measured together shows them too.
    """

    task: Task
    split: str
    checkpoints: tuple[Checkpoint, ...]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    scores: Scores
    annotations: Annotations
    image_ids: list[str]
    fingerprint: str
    recalled: frozenset[str] = frozenset()
    images: str = ""

    @property
    def confidence(self) -> NDArray[np.float32]:
        """Return the probability of the predicted class, ``(checkpoints, n)``."""
        return self.scores.confidence

    def scores_of(self, index: int) -> Scores:
        """Return the scores of one checkpoint, ``(n,)`` each."""
        return Scores(*(each[index] for each in self.scores))


def predict_many(
    checkpoints: Sequence[Checkpoint],
    tasks: Sequence[Task],
    store: Store,
    data: Path | str,
    *,
    split: str = "test",
    settings: EvalConfig | None = None,
    progress: Progress | None = None,
    endpoints: Endpoints | None = None,
) -> Iterator[Predictions]:
    """Yield each task's predictions by all checkpoints after one pass over its images.

    Neighbouring tasks with the same images share one pass, and the features. Checkpoints of different models may be mixed; each
    model then gets its own pass, with its own preprocessing. Several processes share each pass, and each has all predictions.
    ``endpoints`` hold what was read for an earlier call, and are not read again.
    """
    data = expanded(data)
    checkpoints = on_main(lambda: list(checkpoints))
    check_named(checkpoints)
    check_seen(checkpoint.home for checkpoint in checkpoints if not is_ensemble(checkpoint))
    endpoints = endpoints or Endpoints(store, this_device(), progress=progress)
    rows_by_model: dict[ModelConfig, list[int]] = {}
    for row, checkpoint in enumerate(checkpoints):
        rows_by_model.setdefault(ModelConfig.from_json(checkpoint.model), []).append(row)
    passes = [
        new_pass([checkpoints[row] for row in rows], endpoints, settings or EvalConfig(), progress or Silent())
        for rows in rows_by_model.values()
    ]
    for group in _sharing_images(tasks, split, data):
        answers = [each.run(group, data) for each in passes]
        for number, (task, opened) in enumerate(group):
            rows = np.concatenate([np.array(each) for each in rows_by_model.values()])
            predicted, *scores = (
                np.concatenate([of_model[1][column][number] for of_model in answers])[rows.argsort()]
                for column in range(len(Scores._fields) + 1)
            )
            labels = answers[0][0] if number == 0 else np.asarray(labels_of(opened.samples), np.int64)
            yield Predictions(
                task, opened.name, tuple(checkpoints), labels, predicted, Scores(*scores), opened.annotations,
                opened.image_ids(), opened.fingerprint(),
            )  # fmt: skip


def _sharing_images(tasks: Sequence[Task], split: str, data: Path) -> Iterator[list[tuple[Task, Split]]]:
    """Open the tasks; those that follow each other with the same images come together."""
    group: list[tuple[Task, Split]] = []
    for task in tasks:
        opened = same_for_all(task.dataset.split(task.split or split, data))
        if group:
            before, now = images_of(group[0][1]), images_of(opened)
            if before is None or before != now or labels_of(opened.samples) is None:
                yield group
                group = []
        group.append((task, opened))
    if group:
        yield group
