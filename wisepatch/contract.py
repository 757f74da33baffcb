"""What the contract asks of a plugin, one function a check: it raises :class:`BrokenError` where the plugin breaks it.

:mod:`wisepatch.testing` runs them all.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.datasets.base import Dataset, Split, labels_of
from wisepatch.errors import PluginError, WisepatchError
from wisepatch.hookspecs import GROUP
from wisepatch.plugins import collect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEAVY = (
    "accelerate", "cv2", "datasets", "jax", "matplotlib", "numpy", "open_clip", "pandas", "pyarrow", "scipy", "skimage",
    "sklearn", "tensorflow", "timm", "torch", "torchvision", "transformers",
)  # fmt: skip
FIRST = 20  # images of each split that are looked at
STRANGER = "nobody-offers:this"  # a name that no plugin knows
LISTING_SECONDS = 120
CALL = "from wisepatch.contract import report_listing; report_listing()"


class BrokenError(Exception):
    """A check that failed: what the author reads."""


def check_hooks(entry_point: EntryPoint, module: object) -> None:
    """It has a hook, the hooks are marked, and pluggy takes them."""
    hooks = [name for name in ("register_datasets", "find_dataset") if hasattr(module, name)]
    unmarked = [name for name in hooks if not hasattr(getattr(module, name), f"{GROUP}_impl")]
    if unmarked:
        raise BrokenError(f"{' and '.join(unmarked)} must be marked with @wisepatch.hookimpl")
    try:
        collect([(entry_point, "under check")])
    except PluginError as error:
        # Its other reasons are checked for every dataset, and not for the first one alone.
        if error.__cause__ is not None:
            raise BrokenError(str(error.__cause__)) from error
    except Exception:  # noqa: BLE001 -- what register_datasets raises is reported when it is called by itself
        return
    if not hooks:
        raise BrokenError("it has no hook: neither register_datasets nor find_dataset")


def check_listing(entry_point: EntryPoint, folder: Path | None) -> None:
    """List in a fresh process: no heavy library, no file of the data folder, no network."""
    watched = [Path("~/data").expanduser(), *([] if folder is None else [folder])]
    asked = json.dumps([entry_point.name, entry_point.value, [str(each.absolute()) for each in watched]])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", CALL, asked],
            env=environment, capture_output=True, text=True, check=False, timeout=LISTING_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BrokenError(f"listing takes more than {LISTING_SECONDS} seconds") from None
    if done.returncode:
        raise BrokenError(f"it fails in a fresh process: {done.stderr.strip().splitlines()[-1]}")
    seen: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    wrong = [f"{what} {', '.join(names)}" for what, names in seen.items() if names]
    if wrong:
        raise BrokenError(f"{'; '.join(wrong)}; do it when a split is opened")


def report_listing() -> None:
    """What listing a plugin loads and touches, as JSON on stdout; runs in a process of its own."""
    name, value, folders = json.loads(sys.argv[1])
    before, opened, reached = set(sys.modules), [], []
    ready = True

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if not ready:
            return
        if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, bytes, os.PathLike)):
            path = Path(os.path.abspath(os.fsdecode(arguments[0])))  # noqa: PTH100 -- looks at no disk
            code = path.suffix in (".py", ".pyc") or str(path) in sys.path  # importing is no reading of data
            if not code and any(path.is_relative_to(folder) for folder in folders):
                opened.append(str(path))
        elif event in ("socket.connect", "socket.getaddrinfo"):
            reached.append(str(arguments[0] if event == "socket.getaddrinfo" else arguments[1]))

    sys.addaudithook(audit)
    module = EntryPoint(name, value, GROUP).load()
    with contextlib.suppress(Exception):  # reported by the check of register_datasets
        list(module.register_datasets())
    ready = False
    heavy = [each for each in HEAVY if each in sys.modules and each not in before]
    sys.stdout.write(
        "\n" + json.dumps({"listing imports": heavy, "listing reads": opened, "listing connects to": reached})
    )


def registered(module: Any) -> list[Dataset]:
    """What `register_datasets` gives, twice the same."""
    if not hasattr(module, "register_datasets"):
        return []
    twice = [list(module.register_datasets()) for _ in range(2)]
    strange = [each for each in twice[0] if not isinstance(each, Dataset)]
    if strange:
        raise BrokenError(f"it gives a {type(strange[0]).__name__}; return wisepatch.Dataset objects")
    _same(*twice)
    return twice[0]


def _same(first: list[Dataset], second: list[Dataset]) -> None:
    # `open` is left out: two partial objects are never equal.
    if [vars(each) | {"open": None} for each in first] != [vars(each) | {"open": None} for each in second]:
        raise BrokenError("called twice, it gives different datasets")


def check_name(dataset: Dataset, offered: list[Dataset]) -> None:
    """Its names are no other task's, built in or of the same plugin."""
    builtin = collect(()).names
    names = [name.lower() for name in (dataset.name, *dataset.aliases)]
    if not dataset.name.strip():
        raise BrokenError("its name is empty")
    for name in names:
        if name in builtin:
            raise BrokenError(f"{name!r} is the name of the built-in task {builtin[name]}")
        others = [each for each in offered if each is not dataset]
        if any(name in (other.lower() for other in (each.name, *each.aliases)) for each in others):
            raise BrokenError(f"{name!r} is the name of two of its tasks")


def check_stranger(find: Callable[[str], Any]) -> None:
    """`find_dataset` leaves names with another scheme alone, and needs no network to."""
    with refused_network():
        if find(STRANGER) is not None:
            raise BrokenError(f"it answers to {STRANGER!r}; return None for a name with another scheme")


def found(finders: list[Callable[[str], Any]], task: str) -> Dataset:
    """What one of some `find_dataset` gives for a task, twice the same."""
    for find in finders:
        found = find(task)
        if found is not None and not isinstance(found, Dataset):
            raise BrokenError(f"it gives a {type(found).__name__}; return a wisepatch.Dataset, or None")
        if found is not None:
            _same([found], [find(task)])
            return found
    raise BrokenError("it finds no dataset of this name")


def check_classes(dataset: Dataset) -> None:
    """Class names are neither empty nor the same twice."""
    if not all(name.strip() for name in dataset.classes):
        raise BrokenError(f"class {[name.strip() for name in dataset.classes].index('')} has an empty name")
    twice = sorted({name for name in dataset.classes if dataset.classes.count(name) > 1})
    if twice:
        raise BrokenError(f"{', '.join(twice[:5])} is the name of two classes; the head cannot tell them apart")


def check_missing(dataset: Dataset) -> None:
    """Without data and without a network, a split opens (it is drawn) or says what to fetch."""
    for split in dataset.available_splits:
        with tempfile.TemporaryDirectory() as empty, refused_network():
            try:
                dataset.split(split, Path(empty))
            except WisepatchError as error:
                if not error.hint:
                    raise BrokenError(f"the error for {split} has no hint: {error.message}") from error
            except Exception as error:
                raise BrokenError(
                    f"{split} raises {type(error).__name__} ({error}); raise a wisepatch.errors.DataError with a hint"
                ) from error


@contextlib.contextmanager
def refused_network() -> Iterator[None]:
    """Within this context no connection to another machine can be made, as if there were no network."""

    def refuse(*arguments: Any, **named: Any) -> Any:
        raise OSError("the network is refused during this check")

    kept = socket.getaddrinfo, socket.socket.connect, socket.socket.connect_ex

    def connect(self: socket.socket, address: Any) -> Any:
        return kept[1](self, address) if self.family == getattr(socket, "AF_UNIX", None) else refuse()

    patched: Any = socket.socket
    socket.getaddrinfo = refuse
    patched.connect = patched.connect_ex = connect
    try:
        yield
    finally:
        socket.getaddrinfo, patched.connect, patched.connect_ex = kept


@dataclass(frozen=True)
class _Marked:
    image: Any


def _mark(image: Any) -> _Marked:
    return _Marked(image)


def check_image(opened: Split) -> Any:
    """The first image is RGB and its label an int; returns the image."""
    image, label = opened[0]
    _rgb(image)
    if not isinstance(label, int) or isinstance(label, bool):
        raise BrokenError(f"the label is a {type(label).__name__}, not an int")
    return image


def _rgb(image: Any) -> None:
    from PIL import Image

    if not isinstance(image, Image.Image):
        raise BrokenError(f"the image is a {type(image).__name__}, not a PIL image")
    if image.mode != "RGB":
        raise BrokenError(f"the image is of mode {image.mode!r}; convert it to RGB")


def check_transform(dataset: Dataset, split: str, folder: Path) -> None:
    """A transform is applied to the image."""
    image, _ = dataset.split(split, folder, _mark)[0]
    if not isinstance(image, _Marked):
        raise BrokenError("the transform is not applied to the image")
    _rgb(image.image)


def check_labels(opened: Split) -> None:
    """Labels are indices of classes, always the same, and agree with the samples' own list."""
    first = range(min(len(opened), FIRST))
    labels = [opened[index][1] for index in first]
    wrong = [label for label in labels if not 0 <= label < len(opened.classes)]
    if wrong:
        raise BrokenError(f"label {wrong[0]} is outside the {len(opened.classes)} classes; they are counted from 0")
    if labels != [opened[index][1] for index in first]:
        raise BrokenError("the same index gives different labels when it is read again")
    known = labels_of(opened.samples)
    if known is not None and list(known[: len(first)]) != labels:
        raise BrokenError("the attribute with the labels does not agree with reading the images one by one")


def check_pickle(opened: Split) -> None:
    """Samples can be sent to a loading process."""
    try:
        copy = pickle.loads(pickle.dumps(opened))
    except Exception as error:
        raise BrokenError(f"the samples cannot be sent to a worker: {error}") from error
    if len(copy) != len(opened) or copy[0][1] != opened[0][1]:
        raise BrokenError("the samples that arrive in a worker are not those that were sent")


def check_context(opened: Split) -> None:
    """Groups, accepted labels and sequences fit the images and classes."""
    annotations, size = opened.annotations, len(opened)
    for name, values in (("groups", annotations.groups), ("accepted", annotations.accepted)):
        if values is not None and len(values) != size:
            raise BrokenError(f"{name} has {len(values)} entries for {size} images")
    if annotations.groups is not None and not all(
        0 <= group < len(annotations.group_names) for group in annotations.groups
    ):
        raise BrokenError(f"a group is outside the {len(annotations.group_names)} group names")
    if not all(0 <= label < len(opened.classes) for labels in annotations.accepted or () for label in labels):
        raise BrokenError(f"an accepted label is outside the {len(opened.classes)} classes")
    if not all(0 <= index < size for row in annotations.sequences or () for index in row):
        raise BrokenError(f"a sequence names an image outside the {size} of the split")
