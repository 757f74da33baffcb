"""Mix endpoints for evaluation: each is read once, and every mix is written into one working copy of the image tower.

Endpoints are the checkpoints that mixes are made from. On a CPU their tensors are pages of files, which the system may take from
memory; on a GPU image towers and trained heads stay, as far as there is room, and other tensors are copied when a mix needs them.
So memory does not grow with the number of alphas, nor beyond the device with that of endpoints.
Nothing is read before it is needed: manifests name the hash of each part, and tell which towers are the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wisepatch.config import ModelConfig
from wisepatch.counting import count
from wisepatch.devices import has_room
from wisepatch.errors import StoreError, UsageError
from wisepatch.evaluation.kept_merges import kept_merge, unscaled
from wisepatch.files import hash_tensors
from wisepatch.hookspecs import MergeMethod
from wisepatch.models.clip import Clip, load_clip
from wisepatch.plugins import find_merge_method
from wisepatch.progress import Progress
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.parts import check_head, part_of
from wisepatch.store.recipes import load_all, load_weights
from wisepatch.weights.finite import not_finite
from wisepatch.weights.methods import Merge, add_vector, check_same, merge_tensor, survey, with_one_head

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

TEXT, VISUAL, CLASSIFIER = "text", "visual", "classifier"


@dataclass
class Endpoints:
    """Hold the weights of endpoints on a device, each read, verified and hashed at most once, and one working CLIP a model."""

    store: Store
    device: torch.device
    _weights: dict[str, Tensors] = field(default_factory=dict)
    _classifiers: dict[str, Tensors] = field(default_factory=dict)
    _hashes: dict[tuple[str, str], str] = field(default_factory=dict)
    _clips: dict[ModelConfig, Clip] = field(default_factory=dict)
    _text_of_clip: dict[ModelConfig, str] = field(default_factory=dict)
    _names: dict[str, list[str]] = field(default_factory=dict)
    _kept: dict[str, Tensors] = field(default_factory=dict)
    progress: Progress | None = None

    def read(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Read the checkpoints that were not read before."""
        missing = {each.id: each for each in checkpoints if each.id not in self._weights}
        weights_of_all = load_all(self.store, list(missing.values()), check_numbers)
        for checkpoint, weights in zip(missing.values(), weights_of_all, strict=True):
            model = ModelConfig.from_json(checkpoint.model)
            self._names[checkpoint.id] = list(weights)
            for part in (TEXT, VISUAL):
                self._hashes[checkpoint.id, part] = checkpoint.parts.get(part) or hash_tensors(
                    {short: weights[name] for short, name in part_of(weights, part).items()}
                )
            if model not in self._clips:
                self._clips[model] = load_clip(model, weights)
                self._clips[model].model.visual.to(self.device)
                self._text_of_clip[model] = self._hashes[checkpoint.id, TEXT]
            self._weights[checkpoint.id] = self.held({
                name: tensor for name, tensor in weights.items() if name.startswith((f"{VISUAL}.", f"{CLASSIFIER}."))
            })  # fmt: skip

    def held(self, tensors: Tensors) -> Tensors:
        """Return tensors on the device where it has room for them, else as they are."""
        fits = has_room(self.device, sum(tensor.nbytes for tensor in tensors.values()))
        return {name: tensor.to(self.device) for name, tensor in tensors.items()} if fits else tensors

    def weights(self, checkpoint: Checkpoint) -> Tensors:
        """Return image tower and trained head of an endpoint, by their names in the checkpoint; on a full device not on it."""
        self.read([checkpoint])
        return self._weights[checkpoint.id]

    def names(self, checkpoint: Checkpoint) -> list[str]:
        """Return the names of all tensors of an endpoint."""
        self.read([checkpoint])
        return self._names[checkpoint.id]

    def kept(self, mix: Mix) -> Tensors:
        """Return what a costly merge gives, made at most once for all scales; see :func:`kept_merge`."""
        assert mix.method is not None
        key = json.dumps([[parent.id for parent in mix.parents], mix.method.name, unscaled(mix.method, mix.params)])
        if key not in self._kept:
            self._kept[key] = kept_merge(
                self.store, mix.checkpoint, mix.parents, mix.method, self.device, self.progress
            )
        return self._kept[key]

    def classifier(self, checkpoint: Checkpoint) -> Tensors:
        """Return the trained head of an endpoint; nothing else of the checkpoint is read where that can be verified by itself."""
        if checkpoint.id not in self._classifiers:
            alone = CLASSIFIER in checkpoint.parts
            tensors = self.store.read_part(checkpoint, CLASSIFIER) if alone else self.weights(checkpoint)
            check_numbers(checkpoint, tensors)
            # Copied as read_part does: where a tensor begins in memory decides about the last bit of a product.
            self._classifiers[checkpoint.id] = {
                name: tensor.to(self.device).clone()
                for name, tensor in tensors.items()
                if name.startswith(f"{CLASSIFIER}.")
            }
        return self._classifiers[checkpoint.id]

    def part_hash(self, checkpoint: Checkpoint, part: str) -> str:
        """Return the hash of a part (``visual``, ``text``) of an endpoint, from its manifest where that names it."""
        if part in checkpoint.parts:
            return checkpoint.parts[part]
        self.read([checkpoint])
        return self._hashes[checkpoint.id, part]

    def clip(self, checkpoint: Checkpoint) -> Clip:
        """Return the working CLIP of an endpoint's model; the weights of its image tower change with every mix."""
        model = ModelConfig.from_json(checkpoint.model)
        if model not in self._clips:
            self.read([checkpoint])
        return self._clips[model]

    def clip_with_text(self, checkpoint: Checkpoint, text: str) -> Clip | None:
        """Return the working CLIP if its text tower is the one with the hash ``text``."""
        clip = self.clip(checkpoint)
        return clip if self._text_of_clip[clip.config] == text else None


@dataclass(frozen=True)
class Mix:
    """Make a checkpoint from the tensors of its parents by a merge method; a checkpoint with weights is its own single parent."""

    checkpoint: Checkpoint
    parents: tuple[Checkpoint, ...]
    endpoints: Endpoints
    method: MergeMethod | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    fishers: tuple[Tensors, ...] = ()
    _surveyed: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Return a key that mixes with the same text tower share: its hash where their parents share one, else the recipe."""
        return self._key(TEXT)

    @property
    def visual(self) -> str:
        """Return a key that mixes with the same image tower share: its hash where their parents share one, else the recipe."""
        return self._key(VISUAL)

    @property
    def is_probe(self) -> bool:
        """Return whether this is a mix of linear probes: of several parents that differ in their heads alone."""
        return len(self.parents) > 1 and self._shares(VISUAL)

    def tensor(self, name: str, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return the tensor ``name`` of the mix, written into ``out`` where given."""
        device = self.endpoints.device
        return self._merged(name, [self.endpoints.weights(parent)[name].to(device) for parent in self.parents], out)

    def classifier(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the trained head: weight ``(classes, dim)`` and bias ``(classes,)``."""
        heads = with_one_head([self.endpoints.classifier(parent) for parent in self.parents])
        check_same(*heads)
        weight, bias = (
            self._merged(name, [head[name] for head in heads])
            for name in (f"{CLASSIFIER}.weight", f"{CLASSIFIER}.bias")
        )
        check_head(self.checkpoint, len(weight))
        return weight, bias

    def set_weights(self, visual: torch.nn.Module) -> None:
        """Write the mixed image tower into ``visual``, in place; mixed in fp32, whatever the tower computes in."""
        for name, tensor in visual.state_dict(keep_vars=True).items():
            self.tensor(f"{VISUAL}.{name}", out=tensor.data)

    def clip_for_text(self) -> Clip:
        """Return a CLIP with the text tower of the mix."""
        clip = self.endpoints.clip_with_text(self.parents[0], self.text)
        if clip is None:
            weights = load_weights(self.endpoints.store, self.checkpoint)
            clip = load_clip(ModelConfig.from_json(self.checkpoint.model), weights)
        return clip

    def _merged(self, name: str, tensors: Sequence[torch.Tensor], out: torch.Tensor | None = None) -> torch.Tensor:
        if self.method is None:
            return tensors[0] if out is None else out.copy_(tensors[0])
        merge = Merge(self.method, self.params, self.fishers, self._survey)
        if not self.method.costly:
            return merge_tensor(self.method, tensors, merge.settings(name, tensors[0].shape), out)
        kept = self.endpoints.kept(self)
        if not self.method.of_vectors:
            return kept[name].to(self.endpoints.device) if out is None else out.copy_(kept[name])
        if name not in kept:
            return tensors[0].clone() if out is None else out.copy_(tensors[0])
        scale = merge.settings(name, tensors[0].shape).get("scale", 1)
        return add_vector(tensors, kept[name].to(self.endpoints.device), scale, out)

    @property
    def _survey(self) -> Any:
        """Return what the first pass of a merge that is not costly finds, of names and of the tensors that evaluation reads."""
        if self.method is None or self.method.survey is None or self.method.costly:
            return None
        if "survey" not in self._surveyed:
            weights = [self.endpoints.weights(parent) for parent in self.parents]
            names = self.endpoints.names(self.parents[0])
            self._surveyed["survey"] = survey(self.method, weights, self.params, names)
        return self._surveyed["survey"]

    def _shares(self, part: str) -> bool:
        return len({self.endpoints.part_hash(parent, part) for parent in self.parents}) == 1

    def _key(self, part: str) -> str:
        if self._shares(part):
            return self.endpoints.part_hash(self.parents[0], part)
        recipe = [[parent.id for parent in self.parents], self.method and self.method.name, self.params]
        return json.dumps(recipe, sort_keys=True)


def mixes_of(checkpoints: Sequence[Checkpoint], endpoints: Endpoints) -> list[Mix]:
    """Return the mix of each checkpoint, with its parents; no weights are read.

    Raises :class:`UsageError` for none, :class:`StoreError` where parents are gone.
    """
    check_named(checkpoints)
    fishers: dict[str, tuple[Tensors, ...]] = {}
    mixes = []
    for checkpoint in checkpoints:
        if not checkpoint.is_recipe and not _can_be_mixed(checkpoint, endpoints.store):
            mixes.append(Mix(checkpoint, (checkpoint,), endpoints))
            continue
        assert checkpoint.recipe is not None
        files, method = json.dumps(checkpoint.recipe.params.get("fisher")), find_merge_method(checkpoint.recipe.method)
        if method.costly:  # reads what it needs when it is made
            fishers.setdefault(files, ())
        elif files not in fishers:
            tensors = endpoints.store.read_fishers(checkpoint) or ()
            fishers[files] = tuple(map(endpoints.held, tensors))
        mixes.append(
            Mix(
                checkpoint, tuple(endpoints.store.parents(checkpoint)), endpoints, method, checkpoint.recipe.params,
                fishers[files],
            )
        )  # fmt: skip
    return mixes


def check_named(checkpoints: Sequence[Checkpoint]) -> None:
    """Raise :class:`UsageError` where there are no checkpoints."""
    if not checkpoints:
        raise UsageError("no checkpoint to evaluate", "name at least one")


def _can_be_mixed(checkpoint: Checkpoint, store: Store) -> bool:
    """Tell whether a mix that has weights can be merged from its parents all the same; its file is verified.

    Its weights are the same to the bit, and parents are held in memory once for any number of mixes.
    """
    if checkpoint.recipe is None:
        return False
    try:
        store.parents(checkpoint)
        store.fisher_paths(checkpoint)
    except StoreError:  # they were removed: the file stands for itself
        return False
    store.weights_path(checkpoint)
    return True


def check_mixes(mixes: Sequence[Mix], endpoints: Endpoints) -> None:
    """Raise :class:`StoreError` where the parents of a mix are of different architectures; reads them."""
    for parents in {tuple(parent.id for parent in mix.parents): mix.parents for mix in mixes if mix.method}.values():
        check_same(*with_one_head([endpoints.weights(parent) for parent in parents]))


def check_numbers(checkpoint: Checkpoint, tensors: Tensors) -> None:
    """Raise :class:`StoreError` where tensors of a checkpoint hold NaN or infinities (but for those of a mask)."""
    if broken := not_finite(tensors):
        where = f"{count(len(broken), 'tensor')}, such as {broken[0]}"
        raise StoreError(
            f"checkpoint {checkpoint.id} ({checkpoint.name}) holds NaN or infinities in {where}",
            "it cannot be measured; remove it with `wisepatch store rm` and make it again",
        )
