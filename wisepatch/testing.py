"""For plugin authors: :func:`check_plugin` holds a plugin to the contract, :func:`write_images` draws toy data for its tests.

The checks are those that a user would run into: a listing that is slow, an error without a next step, images that are no
RGB, samples that cannot be sent to a worker. All problems are collected before one is raised.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wisepatch import contract
from wisepatch.contract import BrokenError, refused_network
from wisepatch.errors import PluginError, UnknownNameError, WisepatchError
from wisepatch.hookspecs import GROUP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from wisepatch.datasets.base import Dataset

__all__ = ["Finding", "Report", "check_plugin", "inspect_plugin", "refused_network", "write_images"]


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
        checks.run(entry_point.name, "hooks", contract.check_hooks, entry_point, module)
        checks.run(entry_point.name, "listing", contract.check_listing, entry_point, folder)
        offered = checks.run(entry_point.name, "register_datasets", contract.registered, module) or []
        for dataset in offered:
            checks.run(dataset.name, "name", contract.check_name, dataset, offered)
        datasets += offered
        if hasattr(module, "find_dataset"):
            finders.append(module.find_dataset)
            checks.run(entry_point.name, "find_dataset", contract.check_stranger, module.find_dataset)
    for task in tasks:
        found = checks.run(task, "find_dataset", contract.found, finders, task)
        datasets += [found] if found else []
    for dataset in datasets:
        checks.run(dataset.name, "class names", contract.check_classes, dataset)
        checks.run(dataset.name, "missing data", contract.check_missing, dataset)
        if folder is not None:
            for split in dataset.available_splits:
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


@dataclass
class _Checks:
    """Runs checks one after the other and keeps what each gave."""

    findings: list[Finding] = field(default_factory=list)

    def run(self, subject: str, check: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of ``function``, or ``None`` where it raised, which is a problem whatever was raised."""
        try:
            result = function(*arguments)
        except BrokenError as error:
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


def _check_split(checks: _Checks, dataset: Dataset, split: str, folder: Path) -> None:
    opened = checks.run(dataset.name, f"{split}: opens", dataset.split, split, folder)
    if opened is None:
        return
    image = checks.run(dataset.name, f"{split}: first image", contract.check_image, opened)
    if image is None:
        return
    for check, function, arguments in (
        ("transform", contract.check_transform, (dataset, split, folder)),
        ("labels", contract.check_labels, (opened,)),
        ("workers", contract.check_pickle, (opened,)),
        ("context", contract.check_context, (opened,)),
    ):
        checks.run(dataset.name, f"{split}: {check}", function, *arguments)
