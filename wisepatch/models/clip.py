"""The open_clip model: image tower, text tower, tokenizer and preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from wisepatch.config import DEMO, SCHEMAS, ModelConfig
from wisepatch.counting import count
from wisepatch.datasets.decoding import ResizeCheck
from wisepatch.errors import ModelError, UnknownNameError
from wisepatch.files import expanded, is_file
from wisepatch.models.importing import fitting
from wisepatch.models.model_files import CONFIG_NAME, load_tokenizer, loading, one_line, read_description
from wisepatch.models.open_clip_assumptions import check_assumptions, split_transform, unexpected
from wisepatch.weights.finite import not_finite
from wisepatch.weights.state_dicts import HEAD, FoundWeights, read_state_dict

PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
EMBEDDED = Path(__file__).with_name("embedded")


@dataclass(frozen=True)
class Clip:
    """A CLIP in fp32 on the CPU with its transforms and tokenizer.

    ``transform`` maps a PIL image to a ``(3, height, width)`` tensor as the model expects it in evaluation;
    ``train_transform`` crops at random (scale 0.9 to 1, bicubic, no flip) before it. :attr:`pixels` and :meth:`normalise` are
    ``transform`` in two halves, bit for bit: bytes, a quarter of the size, and what is done to a whole batch on the device.
    """

    config: ModelConfig
    model: Any
    transform: Callable[[Any], torch.Tensor]
    train_transform: Callable[[Any], torch.Tensor]
    tokenizer: Callable[..., torch.Tensor]
    has_text: bool = True  # not where the text tower was gone from a file that was imported: it is zeros here

    def __repr__(self) -> str:
        """Return the model's name."""
        return f"Clip({str(self.config)!r})"

    @cached_property
    def pixels(self) -> Callable[[Any], torch.Tensor]:
        """``transform`` up to the conversion to floating point: a PIL image to ``uint8`` pixels ``(3, height, width)``."""
        parts = split_transform(self.transform)
        return parts[0] if parts else self.transform

    @cached_property
    def train_pixels(self) -> Callable[[Any], torch.Tensor]:
        """``train_transform`` up to the conversion to floating point, as :attr:`pixels` is of ``transform``."""
        parts = split_transform(self.train_transform)
        return parts[0] if parts else self.train_transform

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Do the rest of ``transform`` to a batch ``(n, 3, height, width)`` of bytes; other types pass unchanged."""
        parts = split_transform(self.transform)
        if images.dtype != torch.uint8 or parts is None:
            return images
        mean, std = (_per_channel(tuple(values), images.device) for values in parts[1:])
        return images.to(torch.float32).div_(255).sub_(mean).div_(std)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels that the image tower takes."""
        size = self.model.visual.preprocess_cfg["size"]
        return (size, size) if isinstance(size, int) else tuple(size)

    def batch_bytes(self, images: int, *, pixel: int = 1) -> int:
        """Compute the size of a batch as a loading process hands it over: ``pixel`` is 1 for bytes, 4 for floating point."""
        height, width = self.image_size
        return images * 3 * height * width * pixel

    @property
    def text_weights(self) -> dict[str, torch.Tensor]:
        """All tensors but the image tower's; a zero-shot head depends on them."""
        return {k: v for k, v in self.model.state_dict().items() if not k.startswith("visual.")}


@cache  # a copy to a GPU waits for what it is doing
@torch.inference_mode(mode=False)
def _per_channel(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, device=device).view(-1, 1, 1)


def load_clip(config: ModelConfig, weights: Mapping[str, torch.Tensor] | None = None) -> Clip:
    """Build the model that ``config`` names, with its published weights, those of a file, or ``weights``.

    ``weights`` without a text tower make a CLIP without one. Raises :class:`UnknownNameError` for a model or tag that open_clip
    does not know, :class:`ModelError` for weights that cannot be fetched or read, or do not fit.
    """
    import open_clip

    given = weights is not None
    with open_clip_name(config) as name:
        tag = None if name.startswith(SCHEMAS) else config.pretrained
        details = _tag_details(name, tag, needed=not given)
        hint = _weights_by_hand(config, details)
        if name.startswith(SCHEMAS):
            with loading(config.model, hint):
                read_description(config, name)
        source = config.model if config.brings_weights else f"{config.pretrained} weights of {config.model}"
        found = None if given else _read_file(tag)
        options: dict[str, Any] = {"force_quick_gelu": bool(details.get("quick_gelu")), "precision": "fp32"}
        if found or given:
            preprocess = {key: details[key] for key in PREPROCESSING if key in details}
            options |= {"load_weights": False, "force_preprocess_cfg": preprocess}
        else:
            options |= {"pretrained": tag, "require_pretrained": True}
        initialisation = _ZeroInitialisation() if found or given else nullcontext()
        with loading(source, hint), initialisation:
            model, tokenizer = open_clip.create_model(name, **options), load_tokenizer(name)
    with loading(source, "its settings are not those of a CLIP"):
        check_assumptions(model, tokenizer)
        transform, train_transform = _transforms(model)
    if found:
        weights = fitting(model, found, str(config.pretrained))
    whose = f"{config.pretrained}: " if found else ""
    has_text = _set_weights(config, model, weights, whose) if weights is not None else True
    if not given and (broken := not_finite(model.state_dict())):
        tensors = count(len(broken), "tensor holds", "tensors hold")
        raise ModelError(f"{source}: {tensors} NaN or infinities, such as {broken[0]}", hint)
    return Clip(config, model.eval(), transform, train_transform, tokenizer, has_text)


def _read_file(tag: str | None) -> FoundWeights | None:
    """Read the file of weights that a tag names; ``None`` for a tag of open_clip's, and for NumPy's files, which it converts."""
    path = expanded(tag) if tag else None
    return read_state_dict(path) if path and path.suffix != ".npz" and is_file(path) else None


def _set_weights(config: ModelConfig, model: Any, weights: Mapping[str, torch.Tensor], whose: str) -> bool:
    """Load weights without their trained head, all or with no text tower at all; return whether there is one."""
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(HEAD)}
    has_text = any(not name.startswith("visual.") for name in weights)
    if not has_text:
        weights = {**{k: v for k, v in model.state_dict().items() if not k.startswith("visual.")}, **weights}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = f"{whose}the weights do not fit the model {config.model!r}: {one_line(error)}"
        raise ModelError(reason, "name the model they were made with") from error
    return has_text


@contextmanager
def open_clip_name(config: ModelConfig) -> Iterator[str]:
    """Yield the name under which open_clip finds a model; settings that travel with it lie in a folder meanwhile."""
    if not config.settings:
        yield resolve_name(config.model)
        return
    with TemporaryDirectory(prefix="wisepatch-") as folder:
        (Path(folder) / CONFIG_NAME).write_text(config.settings, encoding="utf-8")
        yield f"local-dir:{folder}"


def _transforms(model: Any) -> tuple[Any, Any]:
    """Make the transforms for evaluation and for training."""
    import open_clip

    preprocess_cfg = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
    transform = open_clip.transform.image_transform_v2(preprocess_cfg, is_train=False)
    if split_transform(transform) is None:
        raise unexpected("its transform does not end in ToTensor and Normalize")
    augmentation = {"scale": (0.9, 1.0)}
    train_transform = open_clip.transform.image_transform_v2(preprocess_cfg, is_train=True, aug_cfg=augmentation)
    if preprocess_cfg.resize_mode == "shortest":
        transform.transforms.insert(0, ResizeCheck(max(preprocess_cfg.input_size[1:])))
    return transform, train_transform


def resolve_name(model: str) -> str:
    """Return open_clip's spelling: ``demo`` is the embedded model, ``ViT-B/32`` is ``ViT-B-32``; schemas stay.

    Raises :class:`UnknownNameError` for any other name that open_clip does not list.
    """
    if model.lower() == DEMO:
        return f"local-dir:{EMBEDDED}"
    if model.startswith(SCHEMAS):
        return model
    import open_clip

    known: dict[str, str] = {name.lower(): name for name in open_clip.list_models()}
    if name := known.get(model.replace("/", "-").lower()):
        return name
    if is_file(Path(model)):
        hint = f"name its architecture too: --model ViT-B-32 --pretrained {model}"
        raise ModelError(f"{model} is a file of weights", hint)
    hint = "take demo, a name that open_clip lists, hf-hub:, or local-dir:"
    raise UnknownNameError("model", model, [DEMO, *known.values()], hint)


def describe(config: ModelConfig) -> dict[str, Any]:
    """Describe a model as ``open_clip_config.json`` does, for :func:`load_clip` to build the same one from a ``local-dir:``.

    Holds ``model_cfg`` with the activation of the published weights, and ``preprocess_cfg`` with their mean and std. open_clip is
    imported only for models that it knows by name or from the Hub. Raises as :func:`load_clip` does.
    """
    with open_clip_name(config) as name:
        if name.startswith(SCHEMAS):
            with loading(config.model, _weights_by_hand(config, {})):
                return read_description(config, name)
    import open_clip

    details = _tag_details(name, config.pretrained, needed=False)
    model = open_clip.get_model_config(name)
    if details.get("quick_gelu"):
        model["quick_gelu"] = True
    preprocessing = asdict(open_clip.transform.PreprocessCfg()) | details
    return {"model_cfg": model, "preprocess_cfg": {key: preprocessing[key] for key in PREPROCESSING}}


def hub_name(config: ModelConfig) -> str:
    """Return OWNER/NAME of a model's published weights on the Hugging Face Hub; empty where they are not known to be there."""
    if config.brings_weights:
        return config.model.removeprefix("hf-hub:") if config.model.startswith("hf-hub:") else ""
    details = _tag_details(resolve_name(config.model), config.pretrained, needed=False)
    return "/".join(details.get("hf_hub", "").split("/")[:2])


def save_tokenizer(config: ModelConfig, folder: Path) -> None:
    """Write the files of the model's tokenizer, which open_clip reads from a ``local-dir:``. Raises :class:`ModelError`."""
    describe(config)  # refuses a tokenizer with code of its own
    hint = "it needs the package transformers, and the network where it was never fetched"
    with loading(f"the tokenizer of {config.model}", hint), open_clip_name(config) as name:
        load_tokenizer(name).save_pretrained(folder)


def _tag_details(name: str, tag: str | None, *, needed: bool) -> dict[str, Any]:
    """Look up open_clip's record of a tag (activation, mean, std). An unknown tag is an error if ``needed``.

    For a file these are the mean, std and resizing that all tags of the model have in common.
    """
    import open_clip

    if tag is None:
        return {}
    details: dict[str, Any] = open_clip.get_pretrained_cfg(name, tag)
    if details:
        return details
    tags = open_clip.list_pretrained_tags_by_model(name)
    if needed and not is_file(expanded(tag)):
        hint = f"give a file, or one of the tags {', '.join(tags) or '(it has none)'}"
        raise UnknownNameError(f"pretrained weights of {name}:", tag, tags, hint)
    published = [open_clip.get_pretrained_cfg(name, each) for each in tags]
    values = {key: [each.get(key) for each in published] for key in PREPROCESSING if published}
    return {key: each[0] for key, each in values.items() if each[0] and each.count(each[0]) == len(each)}


def _weights_by_hand(config: ModelConfig, details: Mapping[str, Any]) -> str:
    # Nothing in a file says which activation its weights were trained with; the name of the model has to.
    name = f"--model {config.model.replace('/', '-')}-quickgelu " if details.get("quick_gelu") else ""
    return f"give weights by hand with {name}--pretrained FILE (.safetensors, or what torch.save wrote), or try --model demo"


class _ZeroInitialisation(TorchFunctionMode):
    """Fill new parameters with zeros instead of random numbers, where weights replace them all: saves seconds for a large model.

    ``accelerate.init_empty_weights`` is as fast, but open_clip cannot move its parameters without data to a device, and it
    makes two parameters of one that is shared.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensor = args[0] if args else kwargs.get("tensor")
        if getattr(func, "__name__", "").endswith(("normal_", "uniform_")) and isinstance(tensor, torch.Tensor):
            tensor.data.zero_()
            return tensor
        return func(*args, **kwargs)
