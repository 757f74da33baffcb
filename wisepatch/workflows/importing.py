"""Import checkpoints that were made elsewhere: one model, or a zero-shot one with what was fine-tuned from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.config import ModelConfig, listed
from wisepatch.counting import count
from wisepatch.errors import ModelError, UsageError
from wisepatch.files import expanded, is_folder
from wisepatch.models.classifier import Classifier
from wisepatch.models.clip import Clip, load_clip
from wisepatch.models.importing import check_activation, completed, is_whole, recognise
from wisepatch.models.sources import Source, read_source
from wisepatch.models.zeroshot_head import zeroshot_head
from wisepatch.process_group import on_main
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.recipes import load_weights
from wisepatch.tasks import Task, find_task
from wisepatch.training.start import checkpoint_prefix, classifier_tensors
from wisepatch.weights.finite import not_finite
from wisepatch.weights.methods import check_same
from wisepatch.weights.state_dicts import HEAD, FoundWeights, without_head
from wisepatch.workflows.import_settings import FINETUNED, START, ZEROSHOT, ImportSettings, file_name

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Imported:
    """Hold what :func:`import_checkpoints` saved, the zero-shot one first, and what a user should know of it."""

    checkpoints: tuple[Checkpoint, ...]
    notes: tuple[str, ...] = ()

    @property
    def can_be_measured(self) -> bool:
        """Tell whether there is a text tower to make heads with, or a trained head."""
        return any(each.head or "text" in each.parts for each in self.checkpoints)

    def __repr__(self) -> str:
        """Return the checkpoints."""
        return f"Imported({', '.join(map(repr, self.checkpoints))})"


@dataclass
class _End:
    """One model on its way into the store; ``source`` is missing for a parent that lies there already."""

    weights: Tensors
    source: Source | None = None


def import_checkpoints(
    store: Store,
    files: Sequence[Path | str] | Path | str,
    *,
    name: str = "",
    parent: Checkpoint | str | None = None,
    model: ModelConfig | None = None,
    activation: str = "",
    task: Task | str | None = None,
    classnames: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
) -> Imported:
    """Save models from elsewhere in the store; nothing in their files is run.

    A file holds a state dict, a checkpoint of a training, a TorchScript archive or a whole module (WiSE-FT's
    ``ImageClassifier``, PAINT's ``ImageEncoder``); a folder, or ``hf-hub:OWNER/NAME``, is open_clip's, transformers' or PEFT's.
    The first of several is the zero-shot model, the others were fine-tuned from it; one alone was fine-tuned from ``parent``,
    where that is given. A ``ClassificationHead`` among them goes with all. ``parent``, or the published ``model``, gives a text
    tower back that is gone.

    ``classnames`` name the classes of a trained head, those of ``task`` where they are not given. ``activation`` is
    ``quickgelu`` or ``gelu``, for weights that do not tell it. Raises :class:`UsageError` for what has to be said,
    :class:`ModelError` for files that cannot be read or do not fit, :class:`StoreError` for a name that is taken.
    """
    settings = ImportSettings(
        name,
        store.find(parent) if isinstance(parent, str) else parent,
        model,
        activation,
        find_task(task, classnames, templates) if isinstance(task, str) else task,
        tuple(listed(classnames or ())),
        tuple(listed(templates or ())),
    )
    if not listed(files):
        raise UsageError("no file is named", "name a file of weights, a folder, or hf-hub:OWNER/NAME")
    labels, start, notes = [str(each) for each in listed(files)], settings.parent, list[str]()
    sources, head = _read(labels, settings)
    parent_weights = load_weights(store, start) if start else {}
    if head and not sources:
        found = FoundWeights(without_head(parent_weights) | head.found.tensors)
        sources, head = [Source(head.label, found, head.digest)], None
    config, giver, given = _model_of(sources, parent_weights, settings, notes)
    ends = [_End(completed(each, given, giver, notes), each) for each in sources]
    if start and len(ends) == 1:
        ends.insert(0, _End(dict(parent_weights)))
    for end in ends[1:]:
        check_same(without_head(ends[0].weights), end.weights, source="files")
    clip = _confirm(config, ends, settings.activation, notes)
    about = _with_heads(store, clip, ends, head, settings, notes)
    names = settings.names(store, config, [end.source for end in ends if end.source])
    saved = on_main(lambda: _save(store, config, ends, names, about, settings, settings.words(labels)))
    return Imported(tuple(saved), tuple(notes))


def _read(labels: Sequence[str], settings: ImportSettings) -> tuple[list[Source], Source | None]:
    """Read all files; return the models, the one that an adapter adapts before it, and the head of a file of its own."""
    sources = [_read_one(label, settings.model) for label in labels]
    heads, sources = [each for each in sources if each.is_head], [each for each in sources if not each.is_head]
    if len(heads) > 1:
        raise UsageError(f"{heads[0].label} and {heads[1].label} are both heads", "name one of them")
    if sources and sources[0].is_adapter and not settings.parent:
        base, label = sources[0].base, sources[0].label
        if not base:
            raise UsageError(f"{label} does not say what it adapts", "name that before it, or --parent CHECKPOINT")
        sources.insert(0, read_source(base if is_folder(expanded(base)) else f"hf-hub:{base}"))
    if not sources and not settings.parent:
        raise UsageError(
            f"{heads[0].label} is a head without a model", "name its model's files too, or --parent CHECKPOINT"
        )
    return sources, next(iter(heads), None)


def _read_one(word: str, model: ModelConfig | None) -> Source:
    if not word.endswith(".npz"):
        return read_source(word)
    if model is None:
        raise UsageError(f"{word} holds NumPy's arrays and does not name its model", "name it: --model ViT-B-16-SigLIP")
    config = ModelConfig(model.model, word)  # open_clip converts what big_vision writes
    return Source(word, FoundWeights(dict(load_clip(config).model.state_dict())), model=config)


def _model_of(
    sources: Sequence[Source], parent_weights: Tensors, settings: ImportSettings, notes: list[str]
) -> tuple[ModelConfig, str, Tensors]:
    """Return the model that all sources are of, and who gives them what they lack: its name and weights, empty for nobody."""
    if start := settings.parent:
        return ModelConfig.from_json(start.model), start.name, without_head(parent_weights)
    whole = next((each for each in sources if is_whole(each.found.tensors)), None)
    if model := settings.model:
        config = ModelConfig(model.model, model.pretrained or ("" if whole else "openai"))
        if not whole:
            return config, str(config), dict(load_clip(config).model.state_dict())
    else:
        told = next((each.found.activation for each in sources if each.found.activation), "")
        first = whole or sources[0]
        heads = next((each.found.heads for each in sources if each.found.heads), {})
        found = replace(first.found, activation=first.found.activation or told, heads=first.found.heads or heads)
        config = first.model or recognise(found, first.label, settings.activation, first.beyond)
        if config.settings and not first.model and not found.heads:
            notes.append(
                f"no model of open_clip's has the shapes of {first.label}: heads of attention are taken to be 64 wide"
            )
    return (config, whole.label, whole.found.model) if whole else (config, "", {})


def _confirm(config: ModelConfig, ends: Sequence[_End], activation: str, notes: list[str]) -> Clip:
    """Load the first into its model, and check the others. Raises :class:`ModelError`."""
    try:
        clip = load_clip(config, ends[0].weights)
    except ModelError as error:
        whose = next(end.source.label for end in ends if end.source)
        raise ModelError(f"{whose}: {error.message}", error.hint) from error
    for end in ends:
        if end.source is None:
            continue
        if not activation:  # which was compared with what the files tell
            check_activation(clip.model, end.source.found, end.source.label)
        if broken := not_finite(end.weights):
            tensors = count(len(broken), "tensor holds", "tensors hold")
            reason = f"{end.source.label}: {tensors} NaN or infinities, such as {broken[0]}"
            raise ModelError(reason, "a model with them cannot be measured or mixed")
    if not clip.has_text:
        notes.append(
            "there is no text tower: heads from class names and export need one, which --parent CHECKPOINT or --model NAME gives"
        )
    return clip


def _with_heads(
    store: Store, clip: Clip, ends: Sequence[_End], head: Source | None, settings: ImportSettings, notes: list[str]
) -> dict[str, Any] | None:
    """Put trained heads behind the weights; return what a manifest says of them, ``None`` where there is none.

    One that the zero-shot model lacks is made from the class names and prompts of the task, as fine-tuning begins; the others
    have that of the zero-shot model where they lack one, as it was frozen.
    """
    owners = [head] if head else []
    owners += [end.source for end in ends if end.source and end.source.found.head]
    if not owners:
        ends[0].weights = without_head(ends[0].weights)  # of a parent
        return None
    about = settings.head(owners[0])
    for owner in owners:
        if settings.head(owner)["classes"] != about["classes"]:
            reason = f"the heads of {owners[0].label} and {owner.label} are for other classes"
            raise UsageError(reason, "name files of one task")
        width = owner.found.head[f"{HEAD}weight"].shape[1]
        if width != clip.model.visual.output_dim:
            reason = f"{owner.label} has a head over {width} features, and the model has {clip.model.visual.output_dim}"
            raise ModelError(reason, "name the model that the head was made for")
    for end in ends:
        if end.source:
            end.weights |= end.source.found.head or (head.found.head if head else {})
    first, start, task = ends[0], settings.parent, settings.task
    has_own = first.source or (start and start.head and start.head["classes"] == about["classes"])
    if not has_own or f"{HEAD}weight" not in first.weights:
        if task is None:
            reason = f"{owners[0].label} has a trained head, and what it was fine-tuned from has none for its classes"
            raise UsageError(reason, "--task TASK tells class names and prompts, and one is made from them")
        weight = zeroshot_head(clip, task.dataset.head_names, task.dataset.templates, store)
        first.weights |= classifier_tensors(Classifier(clip.model.visual, weight))
    for end in ends[1:]:
        if f"{HEAD}weight" not in end.weights and end.source:
            end.weights |= {name: tensor for name, tensor in first.weights.items() if name.startswith(HEAD)}
            notes.append(f"{end.source.label} has no head: it keeps that of the zero-shot model")
    return about


def _save(
    store: Store,
    config: ModelConfig,
    ends: Sequence[_End],
    names: Sequence[str],
    head: Mapping[str, Any] | None,
    settings: ImportSettings,
    words: Sequence[str],
) -> list[Checkpoint]:
    """Save all ends; a parent that lies in the store stays as it is, unless it got another head."""
    start = settings.parent
    save = partial(store.save, model=config.to_json(), head=head)
    giver = {"parent": start.id} if start else {}

    def origin(source: Source) -> dict[str, Any]:
        record = {"from": file_name(source.label), "sha256": source.digest, "command": list(words), **giver}
        return {**settings.trained_on(), "imported": record}

    first, *others = ends
    if first.source:
        beginning = save(first.weights, kind=ZEROSHOT, name=names[0], training=ZEROSHOT, config=origin(first.source))
    elif start and head == start.head:
        beginning = start
    else:
        assert start is not None
        name = f"{checkpoint_prefix(config)}/{head['task'] + '/' if head and head['task'] else ''}{START}"
        beginning = save(first.weights, kind=START, name=name, training=ZEROSHOT, trained_from=[start.id])
    saved = [beginning]
    for end, name in zip(others, names[len(names) - len(others) :], strict=True):
        assert end.source is not None
        training = _training(first.weights, end.weights)
        saved.append(
            save(
                end.weights, kind=FINETUNED, name=name, training=training, trained_from=[beginning.id], config=origin(end.source)
            )
        )  # fmt: skip
    return saved


def _training(first: Tensors, end: Tensors) -> str:
    """Tell the papers' procedures by what differs: the head alone, the head too, or the image tower under a head that stayed."""
    import torch

    differs = {
        name for name, tensor in first.items() if tensor.dtype != end[name].dtype or not torch.equal(tensor, end[name])
    }
    if not any(name.startswith(HEAD) for name in differs):
        return "paint"
    return "wise-ft" if any(name.startswith("visual.") for name in differs) else "linear-probe"
