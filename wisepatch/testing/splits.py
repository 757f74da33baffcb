"""Check the datasets of a plugin: their names and metrics, what they say where data is missing, and the images of each split."""

from __future__ import annotations

import pickle
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.guarding import BrokenDatasetError, annotation_problem
from wisepatch.datasets.samples import Split, labels_of
from wisepatch.errors import PluginError, UnknownNameError, WisepatchError
from wisepatch.testing.findings import Findings, require
from wisepatch.testing.network import refused_network

IMAGES_READ = 20  # of each split


def inspect_dataset(findings: Findings, dataset: Dataset, metrics: Iterable[str], folder: Path | None) -> None:
    """Check a dataset, and where its data lies in ``folder``, each of its splits; ``metrics`` are those known."""
    findings.run(dataset.name, "class names", _check_classes, dataset)
    findings.run(dataset.name, "metrics", _check_metrics, dataset, metrics)
    findings.run(dataset.name, "missing data", _check_missing_data, dataset)
    if folder:
        for split in dataset.available_splits:
            _inspect_split(findings, dataset, split, folder)


def _check_classes(dataset: Dataset) -> None:
    for index, name in enumerate(dataset.classes):
        require(name.strip() != "", f"class {index} has an empty name")
    twice = sorted(name for name, times in Counter(dataset.classes).items() if times > 1)
    require(not twice, f"{', '.join(twice[:5])} is the name of two classes; the head cannot tell them apart")


def _check_metrics(dataset: Dataset, known: Iterable[str]) -> None:
    named = [("metric", dataset.metric), *(("extra_metrics", name) for name in dataset.extra_metrics)]
    for field, name in named:
        if name not in known:
            error = UnknownNameError("metric", name, known)
            raise PluginError(f"{field}: {error.message}", error.hint)


def _check_missing_data(dataset: Dataset) -> None:
    """Open every split without data and network: it opens (it is drawn), or says what to fetch."""
    for split in dataset.available_splits:
        with tempfile.TemporaryDirectory() as empty, refused_network():
            try:
                dataset.split(split, Path(empty))
            except BrokenDatasetError as error:
                reason = (
                    f"{split} raises {type(error.__cause__).__name__} ({error.__cause__})"
                    if error.__cause__
                    else error.message
                )
                raise PluginError(f"{reason}; raise a wisepatch.errors.DataError with a hint") from error
            except WisepatchError as error:
                require(error.hint != "", f"the error for {split} has no hint: {error.message}")


def _inspect_split(findings: Findings, dataset: Dataset, split: str, folder: Path) -> None:
    opened = findings.run(dataset.name, f"{split}: opens", dataset.split, split, folder)
    if opened is None or not findings.run(dataset.name, f"{split}: first image", lambda: _check_rgb(opened[0][0])):
        return
    findings.run(dataset.name, f"{split}: transform", _check_transform, dataset, split, folder)
    findings.run(dataset.name, f"{split}: labels", _check_labels, opened)
    findings.run(dataset.name, f"{split}: workers", _check_pickle, opened)
    findings.run(dataset.name, f"{split}: annotations", _check_annotations, opened)


def _check_rgb(image: Any) -> bool:
    require(image.mode == "RGB", f"the image is of mode {image.mode!r}; convert it to RGB")
    return True


def _check_transform(dataset: Dataset, split: str, folder: Path) -> None:
    image, _ = dataset.split(split, folder, lambda image: [image])[0]
    _check_rgb(image[0])


def _check_labels(opened: Split) -> None:
    """Check that labels are always the same, and agree with the samples' own list."""
    first = range(min(len(opened), IMAGES_READ))
    labels, again = ([opened[index][1] for index in first] for _ in range(2))
    require(labels == again, "the same index gives different labels when it is read again")
    listed = labels_of(opened.samples)
    agree = listed is None or list(listed[: len(first)]) == labels
    require(agree, "the attribute with the labels does not agree with reading the images one by one")


def _check_pickle(opened: Split) -> None:
    try:
        copy = pickle.loads(pickle.dumps(opened))
    except Exception as error:
        raise PluginError(f"the samples cannot be sent to a worker: {error}") from error
    same = len(copy) == len(opened) and copy[0][1] == opened[0][1]
    require(same, "the samples that arrive in a worker are not those that were sent")


def _check_annotations(opened: Split) -> None:
    problem = annotation_problem(opened.annotations, len(opened), len(opened.classes))
    require(not problem, problem)
