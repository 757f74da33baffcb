"""Declare what a plugin may provide, and the types that the hooks speak of; a plugin is a module of the group ``wisepatch``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from wisepatch.datasets.base import Dataset
from wisepatch.train_config import TrainConfig

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from numpy.typing import NDArray

    Vectors = Callable[[], Iterator[tuple[str, list[torch.Tensor]]]]

GROUP = "wisepatch"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Measured(NamedTuple):
    """A value with its 95 % interval and the number of images (or groups, or sequences) that it was measured on."""

    value: float
    n: int
    low: float
    high: float


class Scores(NamedTuple):
    """Hold how the probabilities of all classes spread, image by image: arrays ``(n,)``.

    ``confidence`` is the probability of the predicted class, ``rank`` the number of classes above the label's (0: it is the
    answer), ``brier`` the squared distance between the probabilities and the label's one-hot vector, from 0 to 2.
    """

    confidence: NDArray[Any]
    rank: NDArray[Any]
    brier: NDArray[Any]


@dataclass(frozen=True)
class Metric:
    """A measure of predictions that knows its direction and what it needs of the data.

    ``measure(labels, predicted, classes, annotations)`` yields ``(name, Measured)``: labels and predicted classes are integer
    arrays ``(n,)``, ``classes`` their number, ``annotations`` the split's ``wisepatch.Annotations``. ``needs`` names the
    fields of these that must be there. With ``needs_scores``, ``measure`` gets a fifth argument, :class:`Scores`. ``label``
    stands on axes. What ``is_fraction`` is written in per cent, all else as it is.
    """

    name: str
    measure: Callable[..., Iterable[tuple[str, Measured]]]
    higher_is_better: bool = True
    needs: tuple[str, ...] = ()
    label: str = ""
    needs_scores: bool = False
    is_fraction: bool = True


@dataclass(frozen=True)
class Parameter:
    """A parameter of a merge method, as recipes, ``--param`` and sweeps have it.

    ``kind`` is ``number`` (from ``low`` to ``high``), ``integer`` (also from ``low`` to ``high``), ``numbers`` (one for each end)
    or ``word`` (one of ``words``). Without a ``default`` it may be left out where another one takes its place. ``help`` says in
    a few words what it does.
    """

    name: str
    default: Any = None
    low: float = -math.inf
    high: float = math.inf
    kind: str = "number"
    words: tuple[str, ...] = ()
    help: str = ""


@dataclass(frozen=True)
class MergeMethod:
    """A pure function from the tensors of one name in all parents to the merged tensor.

    ``merge(parents, params, out)`` gets fp32 (or fp64) tensors of one shape, the zero-shot parent's first, and the recipe's
    parameters (``alpha`` among them); it may write into ``out``, and returns the result, which of equal tensors is that tensor.
    With ``needs_fisher``, ``params["fishers"]`` holds the Fisher information of each parent for that tensor, or is missing; with
    ``needs_grams``, ``params["grams"]`` holds the Gram matrices of the inputs of the layer whose matrix it is.
    ``elementwise`` says that each number depends on those at its place alone: such tensors are merged in blocks, in little memory.

    ``parameters`` are those that a recipe may have, and ``params["tensor"]`` is the tensor's name then; a method that names no
    parameters takes any. ``from_start`` says that the first parent is the start of all others, the ends, of which ``ends`` is the
    least and the largest number (``None``: any).
    With ``of_vectors``, ``merge`` gets the task vectors ``theta_i - theta_0`` in the place of parents and returns a task vector:
    the model is the start plus ``params["scale"]`` (1, where it has no such parameter) times that.
    ``survey(names, vectors, params)`` is a first pass over the whole model: ``names`` are those of all tensors, and ``vectors()``
    yields name and task vectors of each tensor that an end has changed, in blocks where the method is elementwise, as often as
    it is called; what is returned is ``params["survey"]``. A ``costly`` merge, which takes much longer than a mix of two, is made
    once for all scales and kept in the cache. ``reference`` names the paper.
    """

    name: str
    merge: Callable[[Sequence[torch.Tensor], Mapping[str, Any], torch.Tensor | None], torch.Tensor]
    needs_fisher: bool = False
    elementwise: bool = False
    parameters: tuple[Parameter, ...] = ()
    from_start: bool = False
    ends: tuple[int, int | None] = (1, None)
    of_vectors: bool = False
    survey: Callable[[Sequence[str], Vectors, Mapping[str, Any]], Any] | None = None
    needs_grams: bool = False
    costly: bool = False
    reference: str = ""


class Choice(NamedTuple):
    """The alpha that a rule chose, with a sentence for people about it and the same as JSON types for programs."""

    alpha: float
    note: str = ""
    facts: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class SelectionRule:
    """A rule that chooses alpha: ``choose(frame, value)`` returns an alpha of the sweep, or a :class:`Choice`.

    ``frame`` is a pandas DataFrame with one row an alpha and task, in order of alpha: ``alpha, task, role`` (``patching`` or
    ``supported``), ``metric, value, score`` (better when higher), ``n``, and the images that only alpha 0 has right (``broken``)
    or only this alpha (``fixed``), NaN where nobody counted. ``value`` is what stands after ``=`` (``max-drop=0.01``), as ``read``
    reads it (a number where there is none; it raises :class:`ValueError`), ``None`` where ``takes`` is empty. ``needs_drop`` says
    that the rule measures a drop from alpha 0 on supported tasks, which must then be part of the sweep; ``check(value, alphas,
    tasks)`` says in words what else is missing, before anything is measured.
    """

    name: str
    choose: Callable[[pd.DataFrame, Any], float | Choice]
    takes: str = ""
    needs_drop: bool = False
    read: Callable[[str], Any] | None = None
    check: Callable[[Any, Sequence[float], Sequence[str]], str] | None = None


@dataclass(frozen=True)
class Objective:
    """Define what a fine-tuning minimises: ``prepare(start)`` is called once and returns ``loss(model, batch)``, a scalar tensor.

    ``start`` is a ``wisepatch.TrainingStart``: CLIP and classifier before the first step, task, settings, and ``params``, values of
    ``--objective-param NAME=VALUE`` over those here, whose types they have. ``model(batch.images)`` are logits ``(n, classes)``,
    ``model(batch.images, with_features=True)`` logits and features of unit length ``(n, dim)``; it is called once a batch. Means
    over the images of ``batch``, a ``wisepatch.TrainingBatch``, are multiplied by ``batch.weight``: the mean over processes is then
    that of the whole batch (``start.cross_entropy(logits, batch)`` does so).

    ``head`` says that the head must be ``frozen`` or ``trained``. Without ``on_features`` a frozen encoder is refused. With
    ``trains_text`` the text tower is trained too, and ``model(batch.images, tokens=...)`` gives image features, text features and
    the scale of logits. ``replaces_decay`` says that it takes the place of weight decay, for which ``--wd`` is refused;
    ``unlabelled`` that it takes images of ``--distill-on`` as ``batch.others``; ``several_tasks`` that it serves a joint training
    on several. ``check(config)`` says in words what in the settings does not go with it, or raises an error of its own; ``paper``
    says where it comes from.
    """

    name: str
    prepare: Callable[[Any], Callable[[Any, Any], torch.Tensor]]
    params: Mapping[str, float | int | str] = field(default_factory=dict)
    head: str = ""
    on_features: bool = True
    trains_text: bool = False
    replaces_decay: bool = False
    unlabelled: bool = False
    several_tasks: bool = False
    check: Callable[[TrainConfig], str | None] | None = None
    paper: str = ""


@hookspec
def register_datasets() -> Iterable[Dataset]:  # type: ignore[empty-body]
    """Return the datasets that the plugin offers. Called on look-up, never at start: no torch, no disk, no network."""


@hookspec(firstresult=True)
def find_dataset(name: str) -> Dataset | None:
    """Return the dataset that a name with a scheme stands for, such as ``hf:owner/name``, or ``None`` where it is not yours."""


@hookspec
def register_metrics() -> Iterable[Metric]:  # type: ignore[empty-body]
    """Return the metrics that the plugin offers, for ``--metric NAME`` and for the ``metric`` of datasets."""


@hookspec
def register_merge_methods() -> Iterable[MergeMethod]:  # type: ignore[empty-body]
    """Return the merge methods that the plugin offers, for ``--method NAME``."""


@hookspec
def register_rules() -> Iterable[SelectionRule]:  # type: ignore[empty-body]
    """Return the rules that choose alpha that the plugin offers, for ``--select NAME`` or ``--select NAME=VALUE``."""


@hookspec
def register_objectives() -> Iterable[Objective]:  # type: ignore[empty-body]
    """Return the objectives of fine-tuning that the plugin offers, for ``--objective NAME``."""
