"""``--alpha auto``: race the alphas of a fine grid on growing subsets of the validation images, by the rule that is to choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from wisepatch.analysis.racing import CONFIDENCE, EPSILON, GRID, Objective, Race, coefficients
from wisepatch.config import EvalConfig
from wisepatch.counting import count
from wisepatch.datasets.base import Dataset
from wisepatch.datasets.samples import Split, Subset, Transform
from wisepatch.devices import device
from wisepatch.evaluation.endpoints import Endpoints
from wisepatch.evaluation.prediction import predict_many
from wisepatch.evaluation.recall import about_answers
from wisepatch.process_group import on_main
from wisepatch.progress import Progress, Silent
from wisepatch.ranks import is_main
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.predictions import load_predictions, save_predictions
from wisepatch.tasks import Task
from wisepatch.workflows.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

USUAL_SHARE = 10  # of the evaluations of the grid one is made: what the bar goes to
PART = ".part"  # ends the split's name in the files of answers to some of its images


@dataclass(frozen=True)
class Raced:
    """The alphas that answered all images, and what it took: evaluations are images times alphas."""

    alphas: tuple[float, ...]
    asked: int
    evaluations: int
    grid_evaluations: int

    @property
    def note(self) -> str:
        """Say what it took and what it gives."""
        share = 100 * self.evaluations / self.grid_evaluations
        return (
            f"auto: {count(self.asked, 'alpha')} measured, {len(self.alphas)} of them on all images: {self.evaluations:,} image "
            f"evaluations, {share:.1f} % of the {self.grid_evaluations:,} of 0:1:0.01; the chosen one is within "
            f"{100 * EPSILON:g} point of the best of these on these images, with {100 * CONFIDENCE:g} % confidence, if what two "
            "alphas have wrong is wrong between them too"
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Return the same as JSON types."""
        return {"evaluations": self.evaluations, "grid_evaluations": self.grid_evaluations, "epsilon": EPSILON}


@dataclass
class Answers:
    """Hold the answers of all rows (alphas of the grid, and further baselines) to one task, and keep them in the store."""

    task: Task
    opened: Split
    about: dict[str, Any]
    columns: dict[int, dict[str, NDArray[Any]]] = field(default_factory=dict)  # row: column: (n,)
    known: dict[int, NDArray[np.bool_]] = field(default_factory=dict)  # row: (n,)
    fresh: set[int] = field(default_factory=set)  # rows with answers that the store has not yet

    def recall(self, row: int, checkpoint: Checkpoint, store: Store) -> None:
        """Take what the store holds: the answers to all images or to some, by image."""
        import numpy as np

        for split in (self.opened.name, self.opened.name + PART):
            load = partial(load_predictions, store, checkpoint, self.task.name, split, self.about)
            frame = on_main(partial(load, note=lambda _: None))  # a damaged file is made again
            if frame is not None:
                ids = {image: place for place, image in enumerate(self.opened.image_ids())}
                places = [ids.get(image, -1) for image in frame["image"]]
                if len(ids) == len(self.opened) and -1 not in places:
                    columns = {str(name): frame[name].to_numpy() for name in frame if name != "image"}
                    self.take(row, np.array(places), columns)
                    self.fresh.discard(row)
                    return

    def take(self, row: int, places: NDArray[np.int64], columns: dict[str, NDArray[Any]]) -> None:
        """Keep the answers of a row to the images at ``places``."""
        import numpy as np

        n = len(self.opened)
        known = self.known.setdefault(row, np.zeros(n, bool))
        kept = self.columns.setdefault(row, {})
        for name, values in columns.items():
            kept.setdefault(name, np.zeros(n, values.dtype))[places] = values
        known[places] = True
        self.fresh.add(row)

    def right(self, rows: Sequence[int], places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether ``rows`` have the images at ``places`` right, ``(rows, places)``."""
        import numpy as np

        return np.stack([self.columns[row]["answer"][places] == self.columns[row]["label"][places] for row in rows])

    def save(self, checkpoints: dict[int, Checkpoint], store: Store) -> None:
        """Keep new answers in the store: those to all images as an evaluation does, those to some under a name of their own."""
        import numpy as np

        ids = np.array(self.opened.image_ids(), dtype=object)
        for row in sorted(self.fresh):
            known = self.known[row]
            split = self.opened.name if known.all() else self.opened.name + PART
            columns = {name: values[known] for name, values in self.columns[row].items()}
            save_predictions(
                store, checkpoints[row], self.task.name, split, {"image": ids[known].tolist(), **columns}, self.about
            )
        self.fresh.clear()


class _Part:
    """A dataset that opens some images of a split; the split itself is opened once."""

    def __init__(self, dataset: Dataset, opened: dict[Any, Split], images: NDArray[np.int64]) -> None:
        self.dataset, self.opened, self.images = dataset, opened, images

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)

    def split(self, split: str, root: Path, transform: Transform | None = None) -> Split:
        if transform not in self.opened:
            self.opened[transform] = self.dataset.split(split, root, transform)
        whole = self.opened[transform]
        return replace(whole, samples=Subset(whole.samples, self.images.tolist()))


def _part(task: Task, opened: dict[Any, Split], images: NDArray[np.int64]) -> Task:
    return replace(task, dataset=cast("Dataset", _Part(task.dataset, opened, images)), split=None)


@dataclass
class Asked:
    """Answer what a race asks of its rows: recall what the store holds, compute what is missing in one pass, keep it all.

    ``mix`` makes the checkpoint of an alpha; ``checkpoints`` begins with the baselines, rows beyond the grid. ``computed`` counts
    image evaluations.
    """

    answers: list[Answers]
    mix: Callable[[float], Checkpoint]
    checkpoints: dict[int, Checkpoint]
    store: Store
    data: Path
    split: str
    settings: EvalConfig
    progress: Progress
    rows: set[int] = field(default_factory=set)
    computed: int = 0

    def __post_init__(self) -> None:
        """Prepare to read the ends and to open the splits, each once."""
        self._endpoints = Endpoints(self.store, device())
        self._opened: list[dict[Any, Split]] = [{} for _ in self.answers]

    def ask(self, rows: Sequence[int], images: Sequence[NDArray[np.int64]]) -> list[NDArray[np.bool_]]:
        """Return by task whether ``rows`` have its ``images`` right, ``(rows, images)``."""
        for row in rows:
            if row not in self.rows:
                self._recall(row)
        lacking: dict[tuple[int, ...], list[int]] = {}  # rows: the tasks that they have not answered, in one pass
        for number, (each, places) in enumerate(zip(self.answers, images, strict=True)):
            missing = tuple(row for row in rows if row not in each.known or not each.known[row][places].all())
            if missing:
                lacking.setdefault(missing, []).append(number)
        for missing, numbers in lacking.items():
            self._compute(missing, numbers, images)
        return [each.right(rows, places) for each, places in zip(self.answers, images, strict=True)]

    def _recall(self, row: int) -> None:
        self.rows.add(row)
        if row not in self.checkpoints:
            self.checkpoints[row] = self.mix(coefficients([row])[0])
        if not self.settings.again:
            for each in self.answers:
                each.recall(row, self.checkpoints[row], self.store)

    def _compute(self, rows: Sequence[int], numbers: Sequence[int], images: Sequence[NDArray[np.int64]]) -> None:
        """Compute the answers of ``rows`` to the images of the tasks of these ``numbers``."""
        mixes = [self.checkpoints[row] for row in rows]
        parts = [_part(self.answers[number].task, self._opened[number], images[number]) for number in numbers]
        passes = predict_many(
            mixes, parts, self.store, self.data, split=self.split, settings=self.settings, endpoints=self._endpoints
        )
        for number, given in zip(numbers, passes, strict=True):
            for index, row in enumerate(rows):
                columns = {"label": given.labels, "answer": given.predicted[index], **given.scores_of(index)._asdict()}
                self.answers[number].take(row, images[number], columns)
            self.computed += given.predicted.size
            self.progress.advance(given.predicted.size)

    def save(self) -> None:
        """Keep in the store what was computed."""
        for each in self.answers:
            each.save(self.checkpoints, self.store)


def race_alphas(
    tasks: Sequence[Task],
    objective: Objective,
    mix: Callable[[float], Checkpoint],
    run: Run,
    *,
    baselines: Sequence[Checkpoint] = (),
    split: str,
) -> Raced:
    """Race the grid 0:1:0.01 on ``split`` of the tasks, the patching task first; ``mix`` makes the checkpoint of an alpha.

    ``baselines`` are checkpoints beside the line, rows of the race beyond the grid. Answers are kept in the store, those to some
    of the images too: what was answered once is not asked again. Images come in an order that is drawn with seed 0.
    """
    store, data, progress = run.store, run.data, run.progress or Silent()
    settings = replace(run.settings or EvalConfig(), cache_images=False)
    answers = []
    for task in tasks:
        opened = task.dataset.split(split, data)
        answers.append(Answers(task, opened, about_answers(task, opened.fingerprint(), settings)))
    beside = {GRID + number: each for number, each in enumerate(baselines)}
    asked = Asked(answers, mix, beside, store, data, split, settings, progress)
    race = Race([len(each.opened) for each in answers], objective, asked.ask, rows=GRID + len(baselines))
    progress.start(f"racing alphas on {split} images", GRID * sum(race.sizes) // USUAL_SHARE)
    try:
        full = race.run()
        progress.finish()
    finally:  # also when it is interrupted
        if is_main():
            asked.save()
    return Raced(tuple(coefficients(full)), len(asked.rows), asked.computed, GRID * sum(race.sizes))
