"""Load plugins, list them, look a task up by name. The only file that touches pluggy.

Built-in datasets come through the same hook as those of plugins. A plugin that fails to load is named and skipped;
a misspelt hook and a name taken twice are errors that name the owners. ``WISEPATCH_PLUGINS=0`` leaves all plugins out.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pluggy

from wisepatch import hookspecs
from wisepatch.datasets.base import Dataset
from wisepatch.entrypoints import entry_points
from wisepatch.errors import DataError, PluginError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from importlib import metadata

    from wisepatch.entrypoints import EntryPoint

SCHEME = r"[a-z][a-z0-9-]+:"
KNOWN_SCHEMES = {"hf": "wisepatch-huggingface"}
ELSEWHERE = {  # tasks of this project's own plugins
    "wisepatch-wilds": ("fmow", "fmowid", "fmowood", "iwildcam", "iwildcamid", "iwildcamood"),
    "wisepatch-usps": ("usps",),
}
BUILTIN = (
    "demo", "published.mnist", "published.cifar", "published.stl10", "published.svhn", "published.gtsrb", "published.kitti",
    "published.mtsd", "published.imagenet", "published.imagenet_shifts", "published.imagenet_video", "published.cars",
    "published.dtd", "published.eurosat_resisc45", "published.sun397", "published.food101", "published.clevr",
)  # fmt: skip


class Plugin(NamedTuple):
    """A plugin as found: its entry point, its distribution, what it registered or why it was skipped."""

    name: str
    distribution: str
    datasets: tuple[str, ...] = ()
    problem: str = ""


class Registry(NamedTuple):
    """All tasks known by name, who owns each, and the plugins that were found."""

    datasets: dict[str, Dataset]
    owners: dict[str, str]
    plugins: tuple[Plugin, ...]
    names: dict[str, str]  # every name and alias in lower case, and whose it is
    finders: tuple[tuple[str, Callable[[str], Dataset | None]], ...] = ()


@dataclass(frozen=True)
class Task:
    """A dataset as it was asked for: ``spec`` finds it again, ``split`` is set by ``NAME@val`` (or ``@train``, ``@test``)."""

    spec: str
    dataset: Dataset
    split: str | None = None

    @property
    def base_spec(self) -> str:
        """What finds the task again without the split."""
        return self.spec.removesuffix(f"@{self.split}") if self.split else self.spec

    @property
    def name(self) -> str:
        """The name under which results are kept."""
        return self.dataset.name


@cache
def registry() -> Registry:
    """Return everything that the built-in modules and the installed plugins register.

    Raises :class:`PluginError` for a misspelt hook, a hook that does not return datasets, and a name taken twice.
    """
    return collect(entry_points(hookspecs.GROUP) if os.environ.get("WISEPATCH_PLUGINS") != "0" else ())


class _Manager(pluggy.PluginManager):
    """Looks at what is marked as a hook, and passes the many other names of a module over."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        """Return the options of a marked function."""
        marked = hasattr(getattr(plugin, name, None), f"{hookspecs.GROUP}_impl")
        return super().parse_hookimpl_opts(plugin, name) if marked else None


def collect(found: Iterable[tuple[EntryPoint | metadata.EntryPoint, str]]) -> Registry:
    """Build a registry from the built-in modules and the given ``(entry point, distribution)`` pairs."""
    manager = _Manager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    datasets: dict[str, Dataset] = {}
    owners: dict[str, str] = {}
    taken: dict[str, str] = {}
    plugins, finders = [], []
    for name in BUILTIN:
        module = import_module(f"wisepatch.datasets.{name}")
        _add(module.datasets(), "wisepatch", datasets, owners, taken)
    for entry_point, distribution in found:
        try:
            module = entry_point.load()
        except Exception as error:  # noqa: BLE001 -- whatever a plugin raises on import, it is skipped and named
            plugins.append(Plugin(entry_point.name, distribution, problem=f"{type(error).__name__}: {error}"))
            continue
        owner = f"plugin {entry_point.name!r} ({distribution})"
        try:
            offered = _register(manager, module, owner, datasets, owners, taken)
        except PluginError:
            raise
        except Exception as error:  # noqa: BLE001 -- its hook fails: as good as one that does not load
            plugins.append(Plugin(entry_point.name, distribution, problem=f"{type(error).__name__}: {error}"))
            continue
        plugins.append(Plugin(entry_point.name, distribution, offered))
        if hasattr(module, "find_dataset"):
            finders.append((owner, module.find_dataset))
    return Registry(datasets, owners, tuple(plugins), taken, tuple(finders))


def _register(
    manager: pluggy.PluginManager,
    module: object,
    owner: str,
    datasets: dict[str, Dataset],
    owners: dict[str, str],
    taken: dict[str, str],
) -> tuple[str, ...]:
    try:
        manager.register(module)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(
            f"{owner} does not fit the hooks: {error}", "see wisepatch/hookspecs.py for the hooks there are"
        ) from error
    others = [plugin for plugin in manager.get_plugins() if plugin is not module]
    answers = manager.subset_hook_caller("register_datasets", others)()
    return _add([dataset for answer in answers for dataset in answer], owner, datasets, owners, taken)


def _add(
    registered: Iterable[Dataset],
    owner: str,
    datasets: dict[str, Dataset],
    owners: dict[str, str],
    taken: dict[str, str],
) -> tuple[str, ...]:
    names = []
    for dataset in registered:
        if not isinstance(dataset, Dataset):
            raise PluginError(
                f"{owner}: register_datasets gave a {type(dataset).__name__}", "return wisepatch.Dataset objects"
            )
        if not dataset.name.strip() or any(sign in dataset.name for sign in ",@\n"):
            raise PluginError(
                f"{owner}: {dataset.name!r} cannot be the name of a task",
                "names are not empty and hold no , and no @",
            )
        for key in dict.fromkeys(name.lower() for name in (dataset.name, *dataset.aliases)):
            if key in taken:
                raise PluginError(
                    f"the task name {dataset.name!r} is taken twice: by {owners[taken[key]]} and by {owner}"
                    if key == dataset.name.lower()
                    else f"the alias {key!r} of {dataset.name!r} ({owner}) is taken by {owners[taken[key]]}",
                    "uninstall one of the two, or rename its task",
                )
            taken[key] = dataset.name
        datasets[dataset.name], owners[dataset.name] = dataset, owner
        names.append(dataset.name)
    return tuple(names)


def find_task(spec: str, classnames: Sequence[str] | None = None, templates: Sequence[str] | None = None) -> Task:
    """Look up ``spec``: a registered name in any case, ``NAME@val``, the papers' ``NAMEVal``, a folder, or a CSV.

    A name with a scheme (``hf:owner/name``) is given to the plugins' ``find_dataset``; ``typo:`` before any of these writes
    wrong names on the images.

    Raises :class:`UnknownNameError` that lists close names, or :class:`DataError` for a folder that is none.
    """
    from wisepatch.datasets.attacked_folder import attacked_folder, is_attacked_folder
    from wisepatch.datasets.base import SPLITS
    from wisepatch.datasets.folder import csv_dataset, folder_dataset, renamed
    from wisepatch.datasets.typography import PREFIX, attacked

    if spec.lower().startswith(PREFIX) and not Path(spec).exists():
        if not spec[len(PREFIX) :].strip():
            raise UsageError(f"the task {spec!r} names nothing to write on", f"write {PREFIX}NAME")
        inner = find_task(spec[len(PREFIX) :], classnames, templates)
        return Task(f"{PREFIX}{inner.spec}", attacked(inner.dataset), inner.split)
    plain, at, split = spec.strip().rpartition("@")
    split = split.lower() if split.lower() in SPLITS else split
    if not (plain if at and split in SPLITS else spec).strip():
        raise UsageError(
            f"the task name {spec!r} is empty", "name a task; `wisepatch datasets` lists those known by name"
        )
    if not at or split not in SPLITS:
        if at and "/" not in split and not Path(spec).exists():
            raise UsageError(f"unknown split {split!r} in task {spec!r}", f"splits are {', '.join(SPLITS)}")
        plain, split = spec, ""
    known = {name: registry().datasets[owner] for name, owner in registry().names.items()}
    path = Path(plain).expanduser()
    near = re.sub(r"[-_ ]", "", plain.lower())  # imagenet-a, CIFAR-10
    if plain.lower() in known:
        dataset, spec = known[plain.lower()], known[plain.lower()].name
    elif near in known and not path.exists():
        dataset, spec = known[near], known[near].name
    elif plain.lower().endswith("val") and plain.lower()[:-3] in known:
        dataset, split = known[plain.lower()[:-3]], split or "val"
        spec = dataset.name
    elif re.match(SCHEME, plain) and not path.exists():
        dataset, spec = _find_by_scheme(plain), plain
    elif path.is_dir() and is_attacked_folder(path):
        dataset, spec, classnames = attacked_folder(path, classnames), str(path.resolve()), None
    elif path.is_dir():
        dataset, spec = folder_dataset(path), str(path.resolve())
    elif path.is_file() and path.suffix.lower() == ".csv":
        dataset, spec = csv_dataset(path), str(path.resolve())
    elif path.is_file():
        raise DataError(f"task {plain!r} is a file and no CSV", "give a folder of images, or a .csv with path,label")
    elif "/" in plain or path.suffix.lower() == ".csv":
        raise DataError(
            f"there is no folder or CSV {plain}", "check the path; `wisepatch datasets` lists the tasks known by name"
        )
    else:
        owner = next((owner for owner, names in ELSEWHERE.items() if near in names), None)
        failed = [plugin for plugin in registry().plugins if plugin.problem]
        if owner and owner not in {plugin.distribution.partition(" ")[0] for plugin in failed}:
            raise DataError(f"the task {plain!r} is of the plugin {owner}, which is not installed", f"install {owner}")
        skipped = ", ".join(f"{plugin.name} ({plugin.problem})" for plugin in failed)
        note = f"; plugins that failed to load: {skipped}" if skipped else ""
        raise UnknownNameError("task", plain, registry().datasets, f"`wisepatch datasets` lists all of them{note}")
    return Task(f"{spec}@{split}" if split else spec, renamed(dataset, classnames, templates), split or None)


def _find_by_scheme(name: str) -> Dataset:
    for owner, find in registry().finders:
        dataset = find(name)
        if dataset is not None:
            if not isinstance(dataset, Dataset):
                raise PluginError(
                    f"{owner}: find_dataset gave a {type(dataset).__name__}", "return a wisepatch.Dataset, or None"
                )
            return dataset
    scheme = name.partition(":")[0]
    hint = (
        f"install {KNOWN_SCHEMES[scheme]}" if scheme in KNOWN_SCHEMES else "`wisepatch plugins` lists those installed"
    )
    raise DataError(f"no plugin knows what {scheme}: means in the task {name!r}", hint)


def find_tasks(
    specs: Iterable[str], classnames: Sequence[str] | None = None, templates: Sequence[str] | None = None
) -> list[Task]:
    """Look up several tasks; a name given twice is taken once, two different tasks of one name are an error."""
    found: dict[tuple[str, str | None], Task] = {}
    specs = list(specs)
    if classnames and len(specs) > 1:
        raise UsageError("class names are given for several tasks", "name one --task with --classnames")
    for spec in specs:
        task = find_task(spec, classnames, templates)
        other = found.setdefault((task.name, task.split), task)
        if other.spec != task.spec:
            raise UsageError(
                f"two tasks are called {task.name!r}: {other.spec} and {task.spec}", "rename one of the folders"
            )
    return list(found.values())
