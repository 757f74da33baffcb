"""The open_clip model: image tower, text tower, tokenizer and preprocessing."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.config import DEMO, SCHEMAS
from wisepatch.errors import ModelError, UnknownNameError
from wisepatch.models.preprocessing import halves, on_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch

    from wisepatch.config import ModelConfig

CONFIG_NAME = "open_clip_config.json"
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
DRAWING = (
    "normal_",
    "uniform_",
    "trunc_normal_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "xavier_normal_",
    "xavier_uniform_",
)
EMBEDDED = Path(__file__).with_name("embedded")


@dataclass(frozen=True)
class Clip:
    """A CLIP in fp32 on the CPU with what belongs to it.

    ``transform`` maps a PIL image to a ``(3, height, width)`` tensor as the model expects it in evaluation;
    ``train_transform`` crops at random (scale 0.9 to 1, bicubic, no flip) before it. :meth:`pixels` and :meth:`normalise` are
    ``transform`` in two halves, bit for bit: bytes, a quarter of the size, and what is done to a whole batch on the device.
    """

    config: ModelConfig
    model: Any
    transform: Callable[[Any], torch.Tensor]
    train_transform: Callable[[Any], torch.Tensor]
    tokenizer: Callable[..., torch.Tensor]

    @cached_property
    def pixels(self) -> Callable[[Any], torch.Tensor]:
        """``transform`` up to the conversion to floating point: a PIL image to ``uint8`` pixels ``(3, height, width)``."""
        parts = halves(self.transform)
        return parts[0] if parts else self.transform

    @cached_property
    def fast_pixels(self) -> Callable[[Any], torch.Tensor]:
        """:attr:`pixels` sooner, and not the same: JPEGs are decoded small where that will do, and resized as tensors."""
        return on_tensors(self.pixels)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """The rest of ``transform`` for a batch ``(n, 3, height, width)``; what is no ``uint8`` passes unchanged."""
        import torch

        if images.dtype != torch.uint8:
            return images
        if images.device not in self._scales:  # to bring them there waits for a GPU
            parts = halves(self.transform)
            assert parts is not None
            with torch.inference_mode(False):
                self._scales[images.device] = [
                    torch.tensor(each, device=images.device).view(-1, 1, 1) for each in parts[1:]
                ]
        mean, std = self._scales[images.device]
        return images.to(torch.float32).div_(255).sub_(mean).div_(std)

    @cached_property
    def _scales(self) -> dict[torch.device, list[torch.Tensor]]:
        """Mean and standard deviation by device."""
        return {}

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of what the image tower takes."""
        size = self.model.visual.preprocess_cfg["size"]
        return (size, size) if isinstance(size, int) else tuple(size)

    def batch_bytes(self, images: int, *, pixel: int = 1) -> int:
        """What a batch takes that a loading process hands over: ``pixel`` is 1 for bytes, 4 for floating point."""
        height, width = self.image_size
        return images * 3 * height * width * pixel

    @property
    def text_design(self) -> str:
        """What the text tower computes besides its weights: layers, activations, tokenizer."""
        layers = [str(module) for name, module in self.model.named_children() if name != "visual"]
        return "\n".join([*layers, type(self.tokenizer).__name__, str(self.model.context_length)])

    @property
    def text_weights(self) -> dict[str, torch.Tensor]:
        """All tensors but the image tower's: what a zero-shot head depends on."""
        return {k: v for k, v in self.model.state_dict().items() if not k.startswith("visual.")}


def load_clip(config: ModelConfig, weights: Mapping[str, torch.Tensor] | None = None) -> Clip:
    """Build the model that ``config`` names, with its published weights or with ``weights``.

    Raises :class:`UnknownNameError` for a model or tag that open_clip does not know, :class:`ModelError` for weights that
    cannot be fetched or do not fit.
    """
    import open_clip

    name = resolve_name(config.model)
    tag = None if name.startswith(SCHEMAS) else config.pretrained
    details = _tag_details(name, tag, needed=weights is None)
    options: dict[str, Any] = {"force_quick_gelu": bool(details.get("quick_gelu")), "precision": "fp32"}
    if (
        name.startswith("local-dir:")
        and not (Path(name.removeprefix("local-dir:")) / "open_clip_config.json").is_file()
    ):
        raise ModelError(
            f"{config.model} holds no open_clip_config.json", "a local-dir needs that file and the weights beside it"
        )
    if weights is None:
        options |= {"pretrained": tag, "require_pretrained": True}
    else:
        preprocess = {k: details[k] for k in PREPROCESSING if k in details}
        options |= {"load_weights": False, "force_preprocess_cfg": preprocess}
    with _quiet_logging(), nullcontext() if weights is None else _no_drawing():
        try:
            model = open_clip.create_model(name, **options)
            tokenizer = open_clip.get_tokenizer(name)
        except ImportError as error:
            raise ModelError(
                f"{config.model} needs a package that is not installed: {error}", "install it with pip"
            ) from error
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise _not_loaded(config, error, details) from error
        except Exception as error:
            if type(error).__name__ not in ("UnpicklingError", "SafetensorError"):
                raise
            raise _not_loaded(config, error, details) from error
    if weights is not None:
        own = {k: v for k, v in weights.items() if not k.startswith("classifier.")}
        try:
            model.load_state_dict(own)
        except RuntimeError as error:
            raise ModelError(
                f"the weights do not fit the model {config.model!r}: {_first_line(error)}",
                "name the model they were made with",
            ) from error
    preprocess_cfg = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
    return Clip(
        config,
        model.eval(),
        open_clip.transform.image_transform_v2(preprocess_cfg, is_train=False),
        open_clip.transform.image_transform_v2(preprocess_cfg, is_train=True, aug_cfg={"scale": (0.9, 1.0)}),
        tokenizer,
    )


def resolve_name(model: str) -> str:
    """Return open_clip's spelling: ``demo`` is the embedded model, ``ViT-B/32`` is ``ViT-B-32``; schemas stay.

    Raises :class:`UnknownNameError` for any other name that open_clip does not list.
    """
    import open_clip

    if model.lower() == DEMO:
        return f"local-dir:{EMBEDDED}"
    if model.startswith(SCHEMAS):
        return model
    known = {name.lower(): name for name in open_clip.list_models()}
    name: str | None = known.get(model.replace("/", "-").lower())
    if name is None and Path(model).is_file():
        raise ModelError(
            f"{model} is a file of weights", f"name its architecture too: --model ViT-B-32 --pretrained {model}"
        )
    if name is None:
        raise UnknownNameError(
            "model", model, [DEMO, *known.values()], "take demo, a name that open_clip lists, hf-hub:, or local-dir:"
        )
    return name


def describe(config: ModelConfig) -> dict[str, Any]:
    """What ``open_clip_config.json`` has to say for :func:`load_clip` to build the same model from a ``local-dir:``.

    ``model_cfg`` with the activation of the published weights, and ``preprocess_cfg`` with their mean and std. open_clip is
    imported only for models that it knows by name or from the Hub. Raises as :func:`load_clip` does.
    """
    if config.model.lower() == DEMO or config.model.startswith("local-dir:"):
        folder = EMBEDDED if config.model.lower() == DEMO else Path(config.model.removeprefix("local-dir:"))
        return _read_config(folder / CONFIG_NAME, config)
    import open_clip

    name = resolve_name(config.model)
    if name.startswith(SCHEMAS):
        from open_clip.pretrained import download_pretrained_from_hf

        try:
            path = download_pretrained_from_hf(name.removeprefix("hf-hub:"), filename=CONFIG_NAME)
        except (RuntimeError, OSError, ValueError) as error:
            raise _not_loaded(config, error, {}) from error
        return _read_config(Path(path), config)
    details = _tag_details(name, config.pretrained, needed=False)
    model = open_clip.get_model_config(name)
    if details.get("quick_gelu"):
        model["quick_gelu"] = True
    return {
        "model_cfg": model,
        "preprocess_cfg": {
            key: details.get(key, default) for key, default in asdict(open_clip.transform.PreprocessCfg()).items()
            if key in PREPROCESSING
        },
    }  # fmt: skip


def _read_config(path: Path, config: ModelConfig) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"model_cfg": found["model_cfg"], "preprocess_cfg": found.get("preprocess_cfg", {})}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{config.model}: {path} cannot be read: {error!r}", "it is the open_clip_config.json with the model_cfg"
        ) from error


def save_tokenizer(config: ModelConfig, folder: Path) -> None:
    """Write the files of the model's tokenizer, which open_clip reads from a ``local-dir:``. Raises :class:`ModelError`."""
    import open_clip

    with _quiet_logging():
        try:
            open_clip.get_tokenizer(resolve_name(config.model)).save_pretrained(folder)
        except (ImportError, OSError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"the tokenizer of {config.model} cannot be read: {_first_line(error)}",
                "it needs the package transformers, and the network where it was never fetched",
            ) from error


def _tag_details(name: str, tag: str | None, *, needed: bool) -> dict[str, Any]:
    """What open_clip knows of a tag (activation, mean, std); empty for a file. An unknown tag is an error if it is needed."""
    import open_clip

    if tag is None:
        return {}
    details: dict[str, Any] = open_clip.get_pretrained_cfg(name, tag)
    if needed and not details and not Path(tag).is_file():
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise UnknownNameError(
            f"pretrained weights of {name}:",
            tag,
            tags,
            f"give a file, or one of the tags {', '.join(tags) or '(it has none)'}",
        )
    return details or {}


def _not_loaded(config: ModelConfig, error: BaseException, details: dict[str, Any]) -> ModelError:
    what = config.model if config.brings_weights else f"{config.pretrained} weights of {config.model}"
    # Nothing in a file says which activation its weights were trained with; the name of the model has to.
    name = f"--model {config.model.replace('/', '-')}-quickgelu " if details.get("quick_gelu") else ""
    return ModelError(
        f"{what}: could not be fetched or read: {_first_line(error)}",
        f"give weights by hand with {name}--pretrained FILE (.safetensors, or .pt with tensors only), or try --model demo",
    )


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else text[:397] + "..."


@contextmanager
def _no_drawing() -> Iterator[None]:
    """Leave out the random numbers that a new model is filled with, where weights replace them all: seconds for a large one."""
    import torch
    from torch.overrides import TorchFunctionMode

    class NoDrawing(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            tensor = args[0] if args else kwargs.get("tensor")
            if getattr(func, "__name__", "") in DRAWING and isinstance(tensor, torch.Tensor):
                tensor.data.zero_()  # not what lies in memory, which a loop that draws again until it fits might not end with
                return tensor
            return func(*args, **kwargs)

    with NoDrawing():
        yield


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """Keep open_clip's log lines off the terminal: what it logs as an error is raised as well."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(previous)
