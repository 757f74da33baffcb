"""For plugin authors: :func:`check_plugin` holds a plugin to the contract, :func:`write_images` draws toy data for its tests.

The checks are those that a user would run into: a listing that is slow, an error without a next step, images that are no
RGB, samples that cannot be sent to a worker. All problems are collected before one is raised.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wisepatch.datasets.base import Dataset, Split, labels_of
from wisepatch.errors import PluginError, UnknownNameError, WisepatchError
from wisepatch.hookspecs import GROUP
from wisepatch.plugins import collect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

HEAVY = (
    "accelerate", "cv2", "datasets", "jax", "matplotlib", "numpy", "open_clip", "pandas", "pyarrow", "scipy", "skimage",
    "sklearn", "tensorflow", "timm", "torch", "torchvision", "transformers",
)  # fmt: skip
FIRST = 20  # images of each split that are looked at
STRANGER = "nobody-offers:this"  # a name that no plugin knows
LISTING_SECONDS = 120
CALL = "from wisepatch.testing import _report_listing; _report_listing()"


@dataclass(frozen=True)
class Finding:
    """What one check of one thing gave: ``problem`` is empty where all is well."""

    subject: str  # the task, or the plugin where the check is about the whole of it
    check: str
    problem: str = ""


@dataclass(frozen=True)
class Report:
    """Everything that was checked of a plugin, and the datasets that it offers."""

    plugin: str
    datasets: tuple[Dataset, ...]
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that are problems."""
        return tuple(finding for finding in self.findings if finding.problem)

    def raise_problems(self) -> None:
        """Raise :class:`PluginError` that names plugin, task and reason of every problem, if there is one."""
        if self.problems:
            listed = "\n".join(f"  {found.subject}, {found.check}: {found.problem}" for found in self.problems)
            count = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}"
            raise PluginError(
                f"the plugin {self.plugin} has {count}:\n{listed}",
                "`wisepatch plugins check` repeats the check; the README says what a plugin is",
            )


def check_plugin(
    plugin: ModuleType | str, data: str | Path | None = None, tasks: Iterable[str] = ()
) -> tuple[Dataset, ...]:
    """Hold ``plugin`` to the contract and return its datasets.

    ``plugin`` is a module, the name of an entry point in the group ``wisepatch``, or the name of a distribution. With ``data``,
    a folder in which the data of every task lies (a miniature will do), every split is opened and its first images are
    looked at. ``tasks`` are names with a scheme (``hf:owner/name``) that the plugin's ``find_dataset`` has to find.

    Raises :class:`PluginError` with all problems, and :class:`UnknownNameError` for a name that no plugin has.
    """
    report = inspect_plugin(plugin, data, tasks)
    report.raise_problems()
    return report.datasets


def inspect_plugin(plugin: ModuleType | str, data: str | Path | None = None, tasks: Iterable[str] = ()) -> Report:
    """Do what :func:`check_plugin` does, and report instead of raising."""
    folder = None if data is None else Path(data).expanduser()
    checks = _Checks()
    datasets: list[Dataset] = []
    finders: list[Callable[[str], Any]] = []
    for entry_point in _sources(plugin):
        module = checks.run(entry_point.name, "import", entry_point.load)
        if module is None:
            continue
        checks.run(entry_point.name, "hooks", _check_hooks, entry_point, module)
        checks.run(entry_point.name, "listing", _check_listing, entry_point, folder)
        offered = checks.run(entry_point.name, "register_datasets", _registered, module) or []
        for dataset in offered:
            checks.run(dataset.name, "name", _check_name, dataset, offered)
        datasets += offered
        if hasattr(module, "find_dataset"):
            finders.append(module.find_dataset)
            checks.run(entry_point.name, "find_dataset", _check_stranger, module.find_dataset)
    for task in tasks:
        found = checks.run(task, "find_dataset", _found, finders, task)
        datasets += [found] if found else []
    for dataset in datasets:
        checks.run(dataset.name, "class names", _check_classes, dataset)
        checks.run(dataset.name, "missing data", _check_missing, dataset)
        if folder is not None:
            for split in dataset.offered:
                _check_split(checks, dataset, split, folder)
    name = plugin if isinstance(plugin, str) else plugin.__name__
    return Report(name, tuple(datasets), tuple(checks.findings))


def write_images(folder: str | Path, classes: Sequence[str], per_class: int = 4, size: int = 16) -> Path:
    """Draw ``per_class`` small PNG files for each of ``classes`` into class folders below ``folder``; returns ``folder``.

    Every class has a colour of its own, and every image a white column in another place.
    """
    from PIL import Image

    folder = Path(folder)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        hue = round(255 * number / max(len(classes), 1))
        for index in range(per_class):
            image = Image.new("HSV", (size, size), (hue, 255, 200)).convert("RGB")
            image.paste((255, 255, 255), (index % size, 0, index % size + 1, size))
            image.save(folder / name / f"{index}.png")
    return folder


class _BrokenError(Exception):
    """A check that failed: what the author reads."""


@dataclass
class _Checks:
    """Runs checks one after the other and keeps what each gave."""

    findings: list[Finding] = field(default_factory=list)

    def run(self, subject: str, check: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of ``function``, or ``None`` where it raised, which is a problem whatever was raised."""
        try:
            result = function(*arguments)
        except _BrokenError as error:
            problem, result = str(error), None
        except WisepatchError as error:
            problem, result = error.message, None
        except Exception as error:  # noqa: BLE001 -- a plugin may raise anything, and the other checks go on
            problem, result = f"{type(error).__name__}: {error}", None
        else:
            problem = ""
        self.findings.append(Finding(subject, check, " ".join(problem.split())))
        return result


def _sources(plugin: ModuleType | str) -> list[EntryPoint]:
    if isinstance(plugin, ModuleType):
        sys.modules.setdefault(plugin.__name__, plugin)  # one that was loaded from a file is found by its name too
        return [EntryPoint(plugin.__name__, plugin.__name__, GROUP)]
    installed = list(entry_points(group=GROUP))
    owners = {each.dist.name: _normal(each.dist.name) for each in installed if each.dist}
    found = [each for each in installed if each.name == plugin] or [
        each for each in installed if each.dist and owners[each.dist.name] == _normal(plugin)
    ]
    if not found and plugin.isidentifier() and find_spec(plugin):
        return [EntryPoint(plugin, plugin, GROUP)]
    if not found:
        known = sorted({each.name for each in installed} | set(owners))
        raise UnknownNameError(
            "plugin", plugin, known, "install its distribution first; `wisepatch plugins` lists what is found"
        )
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _check_hooks(entry_point: EntryPoint, module: object) -> None:
    hooks = [name for name in ("register_datasets", "find_dataset") if hasattr(module, name)]
    unmarked = [name for name in hooks if not hasattr(getattr(module, name), f"{GROUP}_impl")]
    if unmarked:
        raise _BrokenError(f"{' and '.join(unmarked)} must be marked with @wisepatch.hookimpl")
    try:
        collect([(entry_point, "under check")])
    except PluginError as error:
        if (
            error.__cause__ is not None
        ):  # the other reasons are checked for every dataset, and not for the first one alone
            raise _BrokenError(str(error.__cause__)) from error
    except Exception:  # noqa: BLE001 -- what register_datasets raises is reported when it is called by itself
        return
    if not hooks:
        raise _BrokenError("it has no hook: neither register_datasets nor find_dataset")


def _check_listing(entry_point: EntryPoint, folder: Path | None) -> None:
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
        raise _BrokenError(f"listing takes more than {LISTING_SECONDS} seconds") from None
    if done.returncode:
        raise _BrokenError(f"it fails in a fresh process: {done.stderr.strip().splitlines()[-1]}")
    seen: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    wrong = [f"{what} {', '.join(names)}" for what, names in seen.items() if names]
    if wrong:
        raise _BrokenError(f"{'; '.join(wrong)}; do it when a split is opened")


def _report_listing() -> None:
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


def _registered(module: Any) -> list[Dataset]:
    if not hasattr(module, "register_datasets"):
        return []
    twice = [list(module.register_datasets()) for _ in range(2)]
    strange = [each for each in twice[0] if not isinstance(each, Dataset)]
    if strange:
        raise _BrokenError(f"it gives a {type(strange[0]).__name__}; return wisepatch.Dataset objects")
    _same(*twice)
    return twice[0]


def _same(first: list[Dataset], second: list[Dataset]) -> None:
    # `open` is left out: two partial objects are never equal.
    if [vars(each) | {"open": None} for each in first] != [vars(each) | {"open": None} for each in second]:
        raise _BrokenError("called twice, it gives different datasets")


def _check_name(dataset: Dataset, offered: list[Dataset]) -> None:
    builtin = collect(()).names
    names = [name.lower() for name in (dataset.name, *dataset.aliases)]
    if not dataset.name.strip():
        raise _BrokenError("its name is empty")
    for name in names:
        if name in builtin:
            raise _BrokenError(f"{name!r} is the name of the built-in task {builtin[name]}")
        others = [each for each in offered if each is not dataset]
        if any(name in (other.lower() for other in (each.name, *each.aliases)) for each in others):
            raise _BrokenError(f"{name!r} is the name of two of its tasks")


def _check_stranger(find: Callable[[str], Any]) -> None:
    with refused_network():
        if find(STRANGER) is not None:
            raise _BrokenError(f"it answers to {STRANGER!r}; return None for a name with another scheme")


def _found(finders: list[Callable[[str], Any]], task: str) -> Dataset:
    for find in finders:
        found = find(task)
        if found is not None and not isinstance(found, Dataset):
            raise _BrokenError(f"it gives a {type(found).__name__}; return a wisepatch.Dataset, or None")
        if found is not None:
            _same([found], [find(task)])
            return found
    raise _BrokenError("it finds no dataset of this name")


def _check_classes(dataset: Dataset) -> None:
    if not all(name.strip() for name in dataset.classes):
        raise _BrokenError(f"class {[name.strip() for name in dataset.classes].index('')} has an empty name")
    twice = sorted({name for name in dataset.classes if dataset.classes.count(name) > 1})
    if twice:
        raise _BrokenError(f"{', '.join(twice[:5])} is the name of two classes; the head cannot tell them apart")


def _check_missing(dataset: Dataset) -> None:
    """Without data and without a network, a split opens (it is drawn) or says what to fetch."""
    for split in dataset.offered:
        with tempfile.TemporaryDirectory() as empty, refused_network():
            try:
                dataset.split(split, Path(empty))
            except WisepatchError as error:
                if not error.hint:
                    raise _BrokenError(f"the error for {split} has no hint: {error.message}") from error
            except Exception as error:
                raise _BrokenError(
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


def _check_split(checks: _Checks, dataset: Dataset, split: str, folder: Path) -> None:
    opened = checks.run(dataset.name, f"{split}: opens", dataset.split, split, folder)
    if opened is None:
        return
    image = checks.run(dataset.name, f"{split}: first image", _check_image, opened)
    if image is None:
        return
    for check, function, arguments in (
        ("transform", _check_transform, (dataset, split, folder)),
        ("labels", _check_labels, (opened,)),
        ("workers", _check_pickle, (opened,)),
        ("context", _check_context, (opened,)),
    ):
        checks.run(dataset.name, f"{split}: {check}", function, *arguments)


def _check_image(opened: Split) -> Any:
    image, label = opened[0]
    _rgb(image)
    if not isinstance(label, int) or isinstance(label, bool):
        raise _BrokenError(f"the label is a {type(label).__name__}, not an int")
    return image


def _rgb(image: Any) -> None:
    from PIL import Image

    if not isinstance(image, Image.Image):
        raise _BrokenError(f"the image is a {type(image).__name__}, not a PIL image")
    if image.mode != "RGB":
        raise _BrokenError(f"the image is of mode {image.mode!r}; convert it to RGB")


def _check_transform(dataset: Dataset, split: str, folder: Path) -> None:
    image, _ = dataset.split(split, folder, _mark)[0]
    if not isinstance(image, _Marked):
        raise _BrokenError("the transform is not applied to the image")
    _rgb(image.image)


def _check_labels(opened: Split) -> None:
    first = range(min(len(opened), FIRST))
    labels = [opened[index][1] for index in first]
    wrong = [label for label in labels if not 0 <= label < len(opened.classes)]
    if wrong:
        raise _BrokenError(f"label {wrong[0]} is outside the {len(opened.classes)} classes; they are counted from 0")
    if labels != [opened[index][1] for index in first]:
        raise _BrokenError("the same index gives different labels when it is read again")
    known = labels_of(opened.samples)
    if known is not None and list(known[: len(first)]) != labels:
        raise _BrokenError("the attribute with the labels does not agree with reading the images one by one")


def _check_pickle(opened: Split) -> None:
    try:
        copy = pickle.loads(pickle.dumps(opened))
    except Exception as error:
        raise _BrokenError(f"the samples cannot be sent to a worker: {error}") from error
    if len(copy) != len(opened) or copy[0][1] != opened[0][1]:
        raise _BrokenError("the samples that arrive in a worker are not those that were sent")


def _check_context(opened: Split) -> None:
    context, size = opened.context, len(opened)
    for name, values in (("groups", context.groups), ("accepted", context.accepted)):
        if values is not None and len(values) != size:
            raise _BrokenError(f"{name} has {len(values)} entries for {size} images")
    if context.groups is not None and not all(0 <= group < len(context.group_names) for group in context.groups):
        raise _BrokenError(f"a group is outside the {len(context.group_names)} group names")
    if not all(0 <= label < len(opened.classes) for labels in context.accepted or () for label in labels):
        raise _BrokenError(f"an accepted label is outside the {len(opened.classes)} classes")
    if not all(0 <= index < size for row in context.sequences or () for index in row):
        raise _BrokenError(f"a sequence names an image outside the {size} of the split")
