"""For plugin authors: :func:`check_plugin` holds a plugin to the contract, :func:`write_images` draws toy data for its tests."""

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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from wisepatch import plugins
from wisepatch.analysis.sweep_frame import sweep_frame
from wisepatch.counting import count
from wisepatch.datasets.base import Dataset
from wisepatch.datasets.guarding import BrokenDatasetError, annotation_problem
from wisepatch.datasets.samples import Annotations, Split, labels_of
from wisepatch.errors import PluginError, UnknownNameError, WisepatchError
from wisepatch.files import expanded
from wisepatch.hookspecs import GROUP, Choice, Measured, MergeMethod, Metric, Objective, Scores, SelectionRule
from wisepatch.plugins import Plugin

HEAVY = (
    "accelerate", "cv2", "datasets", "jax", "matplotlib", "numpy", "open_clip", "pandas", "pyarrow", "scipy", "skimage",
    "sklearn", "tensorflow", "timm", "torch", "torchvision", "transformers",
)  # fmt: skip
IMAGES_READ = 20  # of each split
UNKNOWN_SCHEME = "nobody-offers:this"
LISTING_SECONDS = 120
LISTING = "from wisepatch.testing import _report_listing; _report_listing()"


@dataclass(frozen=True)
class Finding:
    """The result of one check of one thing: ``problem`` is empty where all is well."""

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
        """Return the findings that are problems."""
        return tuple(finding for finding in self.findings if finding.problem)


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
    if report.problems:
        listed = "\n".join(f"  {each.subject}, {each.check}: {each.problem}" for each in report.problems)
        hint = "`wisepatch plugins check` repeats the check; the README says what a plugin is"
        raise PluginError(f"the plugin {report.plugin} has {count(len(report.problems), 'problem')}:\n{listed}", hint)
    return report.datasets


def inspect_plugin(plugin: ModuleType | str, data: str | Path | None = None, tasks: Iterable[str] = ()) -> Report:
    """Do what :func:`check_plugin` does, and report instead of raising."""
    folder = None if data is None else expanded(data)
    findings = _Findings()
    loaded = [each for source in _sources(plugin) if (each := _inspect_hooks(findings, source, folder))]
    datasets = [dataset for each in loaded for dataset in _datasets(each)]
    datasets += [each for task in tasks if (each := findings.run(task, "find_dataset", _find, loaded, task))]
    metrics = {*plugins.registry().all("register_metrics")}.union(*(each.names("register_metrics") for each in loaded))
    for dataset in datasets:
        findings.run(dataset.name, "class names", _check_classes, dataset)
        findings.run(dataset.name, "metrics", _check_metrics, dataset, metrics)
        findings.run(dataset.name, "missing data", _check_missing_data, dataset)
        if folder:
            for split in dataset.available_splits:
                _inspect_split(findings, dataset, split, folder)
    name = plugin if isinstance(plugin, str) else plugin.__name__
    return Report(name, tuple(datasets), tuple(findings))


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


@contextlib.contextmanager
def refused_network() -> Iterator[None]:
    """Refuse connections to other machines within this context, as if there were no network."""

    def refuse(*_arguments: Any, **_named: Any) -> Any:
        raise OSError("the network is refused during this check")

    def connect(self: socket.socket, address: Any) -> Any:
        return connect_locally(self, address) if self.family == getattr(socket, "AF_UNIX", None) else refuse()

    connect_locally = socket.socket.connect
    without_names = mock.patch.object(socket, "getaddrinfo", refuse)
    with without_names, mock.patch.multiple(socket.socket, connect=connect, connect_ex=connect):
        yield


class _Findings(list[Finding]):
    def run(self, subject: str, check: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of ``function``, or ``None`` where it raised, which is a problem whatever was raised."""
        result, problem = None, ""
        try:
            result = function(*arguments)
        except Exception as error:  # noqa: BLE001 -- a plugin may raise anything, and the other checks go on
            problem = _in_words(error)
        self.append(Finding(subject, check, " ".join(problem.split())))
        return result


def _in_words(error: Exception) -> str:
    """Return what is wrong, and what is allowed."""
    if not isinstance(error, WisepatchError):
        return f"{type(error).__name__}: {error}"
    return f"{error.message}; {error.hint}" if error.hint else error.message


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise PluginError(problem)


def _sources(plugin: ModuleType | str) -> list[EntryPoint]:
    if isinstance(plugin, ModuleType):
        sys.modules.setdefault(plugin.__name__, plugin)  # a module loaded from a file is imported by its name below
        return [EntryPoint(plugin.__name__, plugin.__name__, GROUP)]
    installed = [(each, each.dist.name if each.dist else each.name) for each in entry_points(group=GROUP)]
    matching = [each for each, owner in installed if plugin == each.name or _normal(plugin) == _normal(owner)]
    if not matching and plugin.isidentifier() and find_spec(plugin):
        return [EntryPoint(plugin, plugin, GROUP)]
    if not matching:
        known = sorted({name for each, owner in installed for name in (each.name, owner)})
        hint = "install its distribution first; `wisepatch plugins` lists what is found"
        raise UnknownNameError("plugin", plugin, known, hint)
    return matching


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _inspect_hooks(findings: _Findings, source: EntryPoint, folder: Path | None) -> Plugin | None:
    module = findings.run(source.name, "import", source.load)
    plugin: Plugin | None = module and findings.run(source.name, "hooks", _check_hooks, source, module)
    if plugin:
        _inspect_registered(findings, plugin)
        findings.run(source.name, "listing", _check_listing, source, folder)
        findings.run(source.name, "register_datasets", _check_same, _datasets(plugin), _datasets(plugins.load(source)))
        findings.run(source.name, "find_dataset", _check_unknown_scheme, plugin)
    return plugin


def _check_hooks(source: EntryPoint, module: object) -> Plugin:
    hooks = [name for name in (*plugins.REGISTERED, "find_dataset") if hasattr(module, name)]
    unmarked = [name for name in hooks if not hasattr(getattr(module, name), f"{GROUP}_impl")]
    _require(not unmarked, f"{' and '.join(unmarked)} must be marked with @wisepatch.hookimpl")
    (plugin,) = plugins.skip_taken([plugins.load(source)], plugins.registry().builtins)
    _require(not plugin.problem, plugin.problem)
    return plugin


def _datasets(plugin: Plugin) -> tuple[Dataset, ...]:
    return tuple(plugin.registered.get("register_datasets", ()))


def _inspect_registered(findings: _Findings, plugin: Plugin) -> None:
    """Call each metric, merge method and rule with a small example; look at the fields of objectives."""
    checks: dict[str, Callable[[Any], None]] = {
        "register_metrics": _check_metric,
        "register_merge_methods": _check_method,
        "register_rules": _check_rule,
        "register_objectives": _check_objective,
    }
    for hook, check in checks.items():
        for each in plugin.registered.get(hook, ()):
            findings.run(each.name, hook, check, each)


def _check_metric(metric: Metric) -> None:
    known = {field.name for field in fields(Annotations)}
    unknown = [name for name in metric.needs if name not in known]
    _require(not unknown, f"needs: {', '.join(unknown)} is no annotation; known: {', '.join(sorted(known))}")
    if metric.needs:
        return  # no example has all that it may need
    import numpy as np

    labels, predicted = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])
    scores = Scores(np.array([0.9, 0.8, 0.6, 0.7]), np.array([0, 0, 1, 0]), np.array([0.02, 0.08, 0.72, 0.18]))
    measured = dict(metric.measure(labels, predicted, 2, Annotations(), *([scores] if metric.needs_scores else [])))
    _require(metric.name in measured, f"measure: it yields {', '.join(measured) or 'nothing'}, and not {metric.name}")
    for value in measured.values():
        _require(isinstance(value, Measured), f"measure: it yields a {type(value).__name__}; yield wisepatch.Measured")


def _check_method(method: MergeMethod) -> None:
    import torch

    same = torch.arange(4.0)
    if method.parameters:
        from wisepatch.weights.methods import merge_weights
        from wisepatch.weights.parameters import read_params

        ends = max(method.ends[0], 1 if method.from_start else 2)
        models = [{"w": same.clone()} for _ in range(ends + method.from_start)]
        defaults = {"alpha": 0.5} | read_params(method, [], ends)[0]
        merged = merge_weights(method, models, defaults)["w"]
        _require(torch.equal(merged, same), "merge: of equal models it makes another one with its defaults")
        return
    params = {"alpha": 0.5} | ({"fishers": [torch.ones(4)] * 2} if method.needs_fisher else {})
    merged = method.merge([same, same.clone()], params, None)
    _require(torch.equal(merged, same), "merge: of two equal tensors it makes another one; return that tensor")


def _check_rule(rule: SelectionRule) -> None:
    values = {"A": (0.1, 0.8, 0.9), "B": (0.9, 0.8, 0.5)}
    rows = [
        {"alpha": alpha, "task": task, "metric": "top1", "value": value, "n": 100, "broken": 10 * number, "fixed": number}
        for task, known in values.items() for number, (alpha, value) in enumerate(zip((0.0, 0.5, 1.0), known, strict=True))
    ]  # fmt: skip
    if rule.takes and rule.read:
        return  # nobody knows an example of what it takes
    chosen = rule.choose(sweep_frame(rows, "A", ["B"]), 0.01 if rule.takes else None)
    alpha = chosen.alpha if isinstance(chosen, Choice) else chosen
    fits = isinstance(alpha, float | int) and alpha in (0, 0.5, 1)
    _require(fits, f"choose: it returns {alpha!r}; return one of the alphas of the frame, or a wisepatch.Choice")


def _check_objective(objective: Objective) -> None:
    _require(callable(objective.prepare), "prepare: it cannot be called; give a function that returns the loss")
    _require(objective.head in ("", "frozen", "trained"), f"head: {objective.head!r} is not frozen, trained or empty")
    for name, value in objective.params.items():
        kinds = f"params: {name} is a {type(value).__name__}; give a number or a text, from which its type is read"
        _require(type(value) in (int, float, str), kinds)


def _check_listing(source: EntryPoint, folder: Path | None) -> None:
    """Load the plugin in a fresh process: no heavy library, no file of the data folder, no network."""
    watched = [Path("~/data").expanduser(), *([] if folder is None else [folder])]
    asked = json.dumps([source.name, source.value, [str(each.absolute()) for each in watched]])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", LISTING, asked],
            env=environment, capture_output=True, text=True, check=False, timeout=LISTING_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise PluginError(f"listing takes more than {LISTING_SECONDS} seconds") from None
    if done.returncode:
        raise PluginError(f"it fails in a fresh process: {done.stderr.strip().splitlines()[-1]}")
    seen: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    wrong = [f"listing {verb} {', '.join(names)}" for verb, names in seen.items() if names]
    _require(not wrong, f"{'; '.join(wrong)}; do it when a split is opened")


def _report_listing() -> None:
    """Print as JSON what loading a plugin imports and touches; runs in a process of its own."""
    name, value, folders = json.loads(sys.argv[1])
    before = set(sys.modules)
    seen: dict[str, list[str]] = {"imports": [], "reads": [], "connects to": []}

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, bytes, os.PathLike)):
            path = Path(os.path.abspath(os.fsdecode(arguments[0])))  # noqa: PTH100 -- looks at no disk
            code = path.suffix in (".py", ".pyc") or str(path) in sys.path  # importing is no reading of data
            if not code and any(path.is_relative_to(folder) for folder in folders):
                seen["reads"].append(str(path))
        elif event in ("socket.connect", "socket.getaddrinfo"):
            seen["connects to"].append(str(arguments[0] if event == "socket.getaddrinfo" else arguments[1]))

    sys.addaudithook(audit)
    problem = plugins.load(EntryPoint(name, value, GROUP)).problem
    if problem:
        sys.exit(problem)
    seen["imports"] = [each for each in HEAVY if each in sys.modules and each not in before]
    sys.stdout.write("\n" + json.dumps(seen))


def _check_same(first: Iterable[Dataset], second: Iterable[Dataset]) -> None:
    # `open` is left out: two partial objects are never equal.
    one, other = ([vars(each) | {"open": None} for each in datasets] for datasets in (first, second))
    _require(one == other, "called twice, it gives different datasets")


def _check_unknown_scheme(plugin: Plugin) -> None:
    with refused_network():
        answer = plugins.ask(plugin, UNKNOWN_SCHEME)
    _require(not answer, f"it answers to {UNKNOWN_SCHEME!r}; return None for a name with another scheme")


def _find(loaded: Iterable[Plugin], task: str) -> Dataset:
    for plugin in loaded:
        if dataset := plugins.ask(plugin, task):
            _check_same([dataset], filter(None, [plugins.ask(plugin, task)]))
            return dataset
    raise PluginError("it finds no dataset of this name")


def _check_classes(dataset: Dataset) -> None:
    for index, name in enumerate(dataset.classes):
        _require(name.strip() != "", f"class {index} has an empty name")
    twice = sorted(name for name, times in Counter(dataset.classes).items() if times > 1)
    _require(not twice, f"{', '.join(twice[:5])} is the name of two classes; the head cannot tell them apart")


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
                _require(error.hint != "", f"the error for {split} has no hint: {error.message}")


def _inspect_split(findings: _Findings, dataset: Dataset, split: str, folder: Path) -> None:
    opened = findings.run(dataset.name, f"{split}: opens", dataset.split, split, folder)
    if opened is None or not findings.run(dataset.name, f"{split}: first image", lambda: _check_rgb(opened[0][0])):
        return
    findings.run(dataset.name, f"{split}: transform", _check_transform, dataset, split, folder)
    findings.run(dataset.name, f"{split}: labels", _check_labels, opened)
    findings.run(dataset.name, f"{split}: workers", _check_pickle, opened)
    findings.run(dataset.name, f"{split}: annotations", _check_annotations, opened)


def _check_rgb(image: Any) -> bool:
    _require(image.mode == "RGB", f"the image is of mode {image.mode!r}; convert it to RGB")
    return True


def _check_transform(dataset: Dataset, split: str, folder: Path) -> None:
    image, _ = dataset.split(split, folder, lambda image: [image])[0]
    _check_rgb(image[0])


def _check_labels(opened: Split) -> None:
    """Check that labels are always the same, and agree with the samples' own list."""
    first = range(min(len(opened), IMAGES_READ))
    labels, again = ([opened[index][1] for index in first] for _ in range(2))
    _require(labels == again, "the same index gives different labels when it is read again")
    listed = labels_of(opened.samples)
    agree = listed is None or list(listed[: len(first)]) == labels
    _require(agree, "the attribute with the labels does not agree with reading the images one by one")


def _check_pickle(opened: Split) -> None:
    try:
        copy = pickle.loads(pickle.dumps(opened))
    except Exception as error:
        raise PluginError(f"the samples cannot be sent to a worker: {error}") from error
    same = len(copy) == len(opened) and copy[0][1] == opened[0][1]
    _require(same, "the samples that arrive in a worker are not those that were sent")


def _check_annotations(opened: Split) -> None:
    problem = annotation_problem(opened.annotations, len(opened), len(opened.classes))
    _require(not problem, problem)
