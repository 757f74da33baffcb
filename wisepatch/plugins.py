"""Load plugins and collect the datasets, metrics, merge methods, rules and objectives they register; alone touches pluggy.

A plugin that breaks the contract or takes a name that is taken is skipped whole and named with its reason; of a name taken by
two plugins both are skipped, so that nothing depends on the order of loading. ``WISEPATCH_PLUGINS=0`` leaves all plugins out.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Any, TypeVar

import pluggy

from wisepatch import hookspecs
from wisepatch.datasets.base import Dataset
from wisepatch.errors import PluginError, UnknownNameError, WisepatchError
from wisepatch.hookspecs import MergeMethod, Metric, Objective, SelectionRule

BUILTIN = "wisepatch"  # the owner of everything built in
REGISTERED: dict[str, type] = {  # hook: the type of what it returns
    "register_datasets": Dataset,
    "register_metrics": Metric,
    "register_merge_methods": MergeMethod,
    "register_rules": SelectionRule,
    "register_objectives": Objective,
}
UNKNOWN_HOOK = re.compile(r"(unknown hook \S+) in plugin <module .*>")  # as pluggy says it
RESERVED = ",@=\n"  # in names: the command line reads A,B and NAME@SPLIT and NAME=VALUE
Registered = TypeVar("Registered")


@dataclass(frozen=True)
class Plugin:
    """A plugin as found: its entry point, its distribution, what it registered (by hook), or why it was skipped."""

    name: str
    distribution: str
    registered: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    find_dataset: Callable[[str], Any] | None = None
    problem: str = ""

    @property
    def owner(self) -> str:
        """Name the plugin in messages."""
        return self.distribution if self.distribution == BUILTIN else f"plugin {self.name!r} ({self.distribution})"

    def names(self, hook: str) -> tuple[str, ...]:
        """Return the names that it registered through ``hook``."""
        return tuple(each.name for each in self.registered.get(hook, ()))

    def taken(self) -> set[tuple[str, str]]:
        """Return every name and alias that it takes, in lower case, with the hook."""
        return {(hook, name.lower()) for hook, rows in self.registered.items() for row in rows for name in _names(row)}


@dataclass(frozen=True)
class Registry:
    """Everything that is known by name, and the plugins that were found, the skipped ones among them."""

    plugins: tuple[Plugin, ...]
    builtins: tuple[Plugin, ...]

    @property
    def skipped(self) -> tuple[Plugin, ...]:
        """Return the plugins that have a problem."""
        return tuple(plugin for plugin in self.plugins if plugin.problem)

    def all(self, hook: str) -> dict[str, Any]:
        """Return what was registered through ``hook``, by name."""
        plugins = (*self.builtins, *self.plugins)
        return {each.name: each for plugin in plugins for each in plugin.registered.get(hook, ())}

    @property
    def datasets(self) -> dict[str, Dataset]:
        """Return the datasets by name."""
        return self.all("register_datasets")

    @property
    def owners(self) -> dict[str, str]:
        """Return who registered each dataset."""
        plugins = (*self.builtins, *self.plugins)
        return {name: plugin.owner for plugin in plugins for name in plugin.names("register_datasets")}

    @property
    def names(self) -> dict[str, str]:
        """Return the dataset's name for every name and alias in lower case."""
        return {name.lower(): each.name for each in self.datasets.values() for name in _names(each)}

    def find_dataset(self, name: str) -> Dataset | None:
        """Ask every ``find_dataset`` for a name that is not registered; the built-in answer wins.

        Raises :class:`PluginError` where one fails or returns something else than a dataset, and where two plugins answer.
        """
        for group in (self.builtins, self.plugins):
            answers = {plugin.owner: dataset for plugin in group if (dataset := ask(plugin, name)) is not None}
            if len(answers) > 1:
                raise PluginError(f"{name!r} is answered by {' and by '.join(answers)}", "uninstall one of them")
            if answers:
                return next(iter(answers.values()))
        return None


@cache
def registry() -> Registry:
    """Load the built-in modules and the installed plugins, once; skipped plugins are logged."""
    wanted = os.environ.get("WISEPATCH_PLUGINS") != "0"
    collected = collect(metadata.entry_points(group=hookspecs.GROUP) if wanted else ())
    for plugin in collected.skipped:
        logging.getLogger(__name__).warning("skipped: %s: %s", plugin.owner, plugin.problem)
    return collected


def collect(entry_points: Iterable[metadata.EntryPoint]) -> Registry:
    """Build a registry from the built-in modules and the given entry points.

    Raises :class:`PluginError` where wisepatch was installed before its built-in modules were entry points.
    """
    own = metadata.entry_points(group=f"{hookspecs.GROUP}.builtin")
    builtins = tuple(load(each, BUILTIN) for each in sorted(own, key=lambda each: each.name))
    if not builtins:
        raise PluginError("the installation of wisepatch names no built-in tasks", "install it again: pip install -e .")
    for plugin in builtins:
        if plugin.problem:
            raise RuntimeError(f"the built-in {plugin.name} does not load: {plugin.problem}")
    plugins = [load(each) for each in sorted(entry_points, key=lambda each: (each.name, each.value))]
    unlike_builtins = skip_taken(plugins, builtins)
    return Registry(skip_taken(unlike_builtins, unlike_builtins), builtins)


def load(entry_point: metadata.EntryPoint, distribution: str = "") -> Plugin:
    """Import one plugin and call its hooks; a problem of any kind is part of what is returned."""
    if not distribution:
        distribution = f"{entry_point.dist.name} {entry_point.dist.version}" if entry_point.dist else "not installed"
    try:
        module = entry_point.load()
        manager = pluggy.PluginManager(hookspecs.GROUP)
        manager.add_hookspecs(hookspecs)
        manager.register(module)
        manager.check_pending()
        if not manager.get_hookcallers(module):
            raise PluginError("it has no hook: mark its functions with @wisepatch.hookimpl")
        registered = {hook: _registered(manager, hook, kind) for hook, kind in REGISTERED.items()}
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- whatever a plugin raises, it is skipped and named
        expected = isinstance(error, WisepatchError | pluggy.PluginValidationError)
        reason = str(error) if expected else f"{type(error).__name__}: {error}"
        reason = UNKNOWN_HOOK.sub(rf"\1; hooks are {', '.join([*REGISTERED, 'find_dataset'])}", reason)
        return Plugin(entry_point.name, distribution, problem=" ".join(reason.split()))
    return Plugin(entry_point.name, distribution, registered, lambda name: manager.hook.find_dataset(name=name))


def _registered(manager: pluggy.PluginManager, hook: str, kind: Any) -> tuple[Any, ...]:
    (answer,) = getattr(manager.hook, hook)() or [()]  # it has one plugin
    if isinstance(answer, kind | str):
        raise PluginError(f"{hook} gave one {type(answer).__name__}; return a list")
    rows, seen = tuple(answer), set[str]()
    for each in rows:
        if not isinstance(each, kind):
            given, wanted = type(each).__name__, f"wisepatch.{kind.__name__} objects"
            raise PluginError(f"{hook} gave a value of type {given}; return {wanted}")
        for name in _names(each):
            if not isinstance(name, str) or not name or name != name.strip() or any(sign in name for sign in RESERVED):
                raise PluginError(f"{hook}: {name!r} cannot be a name: a word without , @ = or spaces around it can")
            if name.lower() in seen:
                raise PluginError(f"{hook}: the name {name!r} is taken twice")
            seen.add(name.lower())
    return rows


def _names(registered: Any) -> tuple[str, ...]:
    return (registered.name, *getattr(registered, "aliases", ()))


def skip_taken(plugins: Sequence[Plugin], others: Sequence[Plugin]) -> tuple[Plugin, ...]:
    """Return the plugins, those skipped that take a name of another plugin among ``others``."""
    checked = []
    for plugin in plugins:
        owners = {key: other.owner for other in others if other is not plugin for key in other.taken()}
        if taken := sorted(plugin.taken() & set(owners)):
            reason = f"the name {taken[0][1]!r} is taken by {owners[taken[0]]}"
            plugin = Plugin(plugin.name, plugin.distribution, problem=reason)
        checked.append(plugin)
    return tuple(checked)


def ask(plugin: Plugin, name: str) -> Dataset | None:
    """Call the plugin's ``find_dataset``; errors name the plugin."""
    if plugin.find_dataset is None:
        return None
    try:
        dataset = plugin.find_dataset(name)
    except WisepatchError:
        raise
    except (Exception, SystemExit) as error:
        if plugin.distribution == BUILTIN:
            raise
        reason = f"{plugin.owner}: find_dataset of {name!r} raised {type(error).__name__}: {error}"
        raise PluginError(reason, "tell its author, or leave plugins out with WISEPATCH_PLUGINS=0") from error
    if not isinstance(dataset, Dataset | None):
        reason = f"{plugin.owner}: find_dataset gave a {type(dataset).__name__}"
        raise PluginError(reason, "return a wisepatch.Dataset, or None")
    return dataset


def find_metric(name: str) -> Metric:
    """Return the metric of that name. Raises :class:`UnknownNameError`."""
    return _find(Metric, "metric", "register_metrics", name)


def find_merge_method(name: str) -> MergeMethod:
    """Return the merge method of that name. Raises :class:`UnknownNameError`."""
    return _find(MergeMethod, "merge method", "register_merge_methods", name)


def find_rule(name: str) -> SelectionRule:
    """Return the rule of that name. Raises :class:`UnknownNameError`."""
    return _find(SelectionRule, "rule", "register_rules", name)


def find_objective(name: str) -> Objective:
    """Return the objective of fine-tuning of that name. Raises :class:`UnknownNameError`."""
    return _find(Objective, "objective", "register_objectives", name)


def _find(_kind: type[Registered], word: str, hook: str, name: str) -> Registered:
    known: dict[str, Registered] = registry().all(hook)
    if not known:
        raise PluginError(f"the installation of wisepatch names no {word}", "install it again: pip install -e .")
    if name not in known:
        raise UnknownNameError(word, name, known)
    return known[name]
