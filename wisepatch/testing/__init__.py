"""For plugin authors: :func:`check_plugin` holds a plugin to the contract, :func:`write_images` draws toy data for its tests."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from wisepatch import plugins
from wisepatch.counting import count
from wisepatch.datasets.base import Dataset
from wisepatch.errors import PluginError, UnknownNameError
from wisepatch.files import expanded
from wisepatch.hookspecs import GROUP
from wisepatch.plugins import Plugin
from wisepatch.testing.findings import Finding, Findings, require
from wisepatch.testing.listing import check_listing
from wisepatch.testing.network import refused_network
from wisepatch.testing.registered import inspect_registered
from wisepatch.testing.splits import inspect_dataset

__all__ = ["Finding", "Report", "check_plugin", "inspect_plugin", "refused_network", "write_images"]

UNKNOWN_SCHEME = "nobody-offers:this"


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
    findings = Findings()
    loaded = [each for source in _sources(plugin) if (each := _inspect_hooks(findings, source, folder))]
    datasets = [dataset for each in loaded for dataset in _datasets(each)]
    datasets += [each for task in tasks if (each := findings.run(task, "find_dataset", _find, loaded, task))]
    metrics = {*plugins.registry().all("register_metrics")}.union(*(each.names("register_metrics") for each in loaded))
    for dataset in datasets:
        inspect_dataset(findings, dataset, metrics, folder)
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


def _inspect_hooks(findings: Findings, source: EntryPoint, folder: Path | None) -> Plugin | None:
    module = findings.run(source.name, "import", source.load)
    plugin: Plugin | None = module and findings.run(source.name, "hooks", _check_hooks, source, module)
    if plugin:
        inspect_registered(findings, plugin)
        findings.run(source.name, "listing", check_listing, source, folder)
        findings.run(source.name, "register_datasets", _check_same, _datasets(plugin), _datasets(plugins.load(source)))
        findings.run(source.name, "find_dataset", _check_unknown_scheme, plugin)
    return plugin


def _check_hooks(source: EntryPoint, module: object) -> Plugin:
    hooks = [name for name in (*plugins.REGISTERED, "find_dataset") if hasattr(module, name)]
    unmarked = [name for name in hooks if not hasattr(getattr(module, name), f"{GROUP}_impl")]
    require(not unmarked, f"{' and '.join(unmarked)} must be marked with @wisepatch.hookimpl")
    known = plugins.registry()
    (plugin,) = plugins.skip_taken([plugins.load(source)], known.builtins)
    require(not plugin.problem, plugin.problem)
    # Beside another installed plugin that takes one of its names, it is skipped as both are.
    same = [each for each in known.skipped if (each.name, each.distribution) == (plugin.name, plugin.distribution)]
    require(not same, same[0].problem if same else "")
    return plugin


def _datasets(plugin: Plugin) -> tuple[Dataset, ...]:
    return tuple(plugin.registered.get("register_datasets", ()))


def _check_same(first: Iterable[Dataset], second: Iterable[Dataset]) -> None:
    # `open` is left out: two partial objects are never equal.
    one, other = ([vars(each) | {"open": None} for each in datasets] for datasets in (first, second))
    require(one == other, "called twice, it gives different datasets")


def _check_unknown_scheme(plugin: Plugin) -> None:
    with refused_network():
        answer = plugins.ask(plugin, UNKNOWN_SCHEME)
    require(not answer, f"it answers to {UNKNOWN_SCHEME!r}; return None for a name with another scheme")


def _find(loaded: Iterable[Plugin], task: str) -> Dataset:
    for plugin in loaded:
        if dataset := plugins.ask(plugin, task):
            _check_same([dataset], filter(None, [plugins.ask(plugin, task)]))
            return dataset
    raise PluginError("it finds no dataset of this name")
