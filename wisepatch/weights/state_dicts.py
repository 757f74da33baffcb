"""Find a model's tensors in what a file holds, whatever they are wrapped in, and give them their plain names.

A file of weights is safetensors, or what :mod:`wisepatch.weights.torch_files` reads: a state dict, a checkpoint of a training
with one in it, a TorchScript archive, or a whole module. Names come out without the prefixes of wrappers (``module.``,
``_orig_mod.``, ``model.``, ``image_encoder.model.``); a classification head is ``classifier.weight`` and ``classifier.bias``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

from wisepatch.errors import ModelError
from wisepatch.pickles import MAX_SHOWN
from wisepatch.weights.restricted_unpickler import Placeholder
from wisepatch.weights.stored_tensors import StoredTensor
from wisepatch.weights.streaming import read_weights
from wisepatch.weights.torch_files import read_torch_file, said_of

if TYPE_CHECKING:
    import torch

HEAD = "classifier."
QUICK_GELU, GELU = "quickgelu", "gelu"  # the words of --activation
STATE_DICTS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "weights",
)  # in this order
WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|module)\.")
OUTER = re.compile(r"(?:(?:model|image_encoder|clip_model|clip)\.)+")
TRAINED_HEAD = re.compile(r"(?:classification_head|classifier)\.(?=weight$|bias$)")
# OpenAI's archives hold the first three beside the weights; masks and counters of positions follow from the settings.
OPENAI_NUMBERS = frozenset({"input_resolution", "context_length", "vocab_size"})
NOT_WEIGHTS = re.compile(r"(?:.+\.)?(?:attn_mask|position_ids)")
MAX_MODULES, MAX_DEPTH = 100_000, 64
HINT = "give a state_dict, a checkpoint of a training, or a whole CLIP"


@dataclass
class FoundWeights:
    """The tensors of a file by their plain names, and what the file says of the model beside them.

    ``activation`` is ``quickgelu`` or ``gelu`` where the classes of a module tell it; ``heads`` are the attention heads of
    ``visual`` and ``text`` where a module tells them; ``is_openai`` says that OpenAI's three numbers are there.
    """

    tensors: dict[str, torch.Tensor]
    activation: str = ""
    heads: dict[str, int] = field(default_factory=dict)
    is_openai: bool = False

    @property
    def head(self) -> dict[str, torch.Tensor]:
        """Return the classification head, ``classifier.weight`` ``(classes, dim)`` and ``.bias``; empty where there is none."""
        return {name: tensor for name, tensor in self.tensors.items() if name.startswith(HEAD)}

    @property
    def model(self) -> dict[str, torch.Tensor]:
        """Return all tensors but the classification head."""
        return without_head(self.tensors)


def without_head(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return all tensors but the classification head."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(HEAD)}


def read_state_dict(path: Path) -> FoundWeights:
    """Read the weights of a file of any kind that is known here; nothing in it is run.

    Raises :class:`ModelError` that names the file and what is wrong with it.
    """
    with suppress(OSError):  # said when it is read
        if not S_ISREG(path.stat().st_mode):
            raise ModelError(f"{path} is no file", HINT)  # to open a pipe may take for ever
    if path.suffix == ".json" or _is_safetensors(path):
        tensors = read_weights(path)[0]
        return FoundWeights(_with_bias({new: tensors[old] for new, old in _plain_names(tensors, path).items()}))
    content = read_torch_file(path)
    with said_of(path):
        return _find(content, path)


def _is_safetensors(path: Path) -> bool:
    """Tell safetensors by their suffix, or by the header that follows its length."""
    if path.suffix == ".safetensors":
        return True
    try:
        with path.open("rb") as file:
            return file.read(9)[5:] == b"\0\0\0{"
    except OSError:
        return False  # said when it is read


def _unwrapped(content: Any) -> Any:
    """Return the state dict or the module within a checkpoint of a training."""
    for _ in range(MAX_DEPTH):
        inner = [content[key] for key in STATE_DICTS if key in content] if isinstance(content, dict) else []
        models = [each for each in inner if isinstance(each, dict | Placeholder)]
        if not models:
            break
        content = models[0]
    return content


def _find(content: Any, path: Path) -> FoundWeights:
    content = _unwrapped(content)
    found = FoundWeights({})
    stored: dict[str, StoredTensor] = {}
    if isinstance(content, dict):
        stored = {name: each for name, each in content.items() if isinstance(each, StoredTensor)}
    elif isinstance(content, Placeholder):
        stored = dict(_tensors_of_module(content, path, found))
    if not stored:
        raise ModelError(f"{path} holds no weights, but {_describe(content)}", HINT)
    found.is_openai = set(content.state if isinstance(content, Placeholder) else content) >= OPENAI_NUMBERS
    if set(stored) <= {"weight", "bias"}:  # a head by itself
        stored = {f"{HEAD}{name}": tensor for name, tensor in stored.items()}
    found.tensors = _with_bias({new: stored[old].read() for new, old in _plain_names(stored, path).items()})
    return found


def _tensors_of_module(module: Placeholder, path: Path, found: FoundWeights) -> Iterator[tuple[str, StoredTensor]]:
    """Yield what ``state_dict()`` of a pickled module, or of a TorchScript one, would hold; note what its classes say."""
    waiting, seen = [("", module, 0)], 0
    while waiting:
        prefix, each, depth = waiting.pop()
        seen += 1
        if seen > MAX_MODULES or depth > MAX_DEPTH:
            raise ModelError(f"{path} has modules within modules without end", HINT)
        _note(prefix, each, path, found)
        state, scripted = each.state, each.path.startswith("__torch__.")
        parts = [state] if scripted else [state.get(name) for name in ("_parameters", "_buffers", "_modules")]
        left_out = () if scripted else state.get("_non_persistent_buffers_set") or ()
        for name, value in (item for part in parts if isinstance(part, dict) for item in part.items()):
            if isinstance(value, StoredTensor) and name not in left_out:
                yield f"{prefix}{name}", value
            elif isinstance(value, Placeholder):
                waiting.append((f"{prefix}{name}.", value, depth + 1))


def _note(prefix: str, module: Placeholder, path: Path, found: FoundWeights) -> None:
    if module.kind in ("QuickGELU", "GELU") and not found.activation:
        found.activation = module.kind.lower()
    heads = module.state.get("num_heads")
    if type(heads) is int and 0 < heads < 1024:
        found.heads.setdefault("visual" if "visual." in prefix else "text", heads)
    if module.kind == "ClassificationHead" and module.state.get("normalize") is False:
        raise ModelError(
            f"{path} has a head over features of any length", "heads here take features of unit length (normalize=True)"
        )


def _describe(content: Any) -> str:
    if isinstance(content, Placeholder):
        return f"a {content.path[:MAX_SHOWN]}"
    if not isinstance(content, dict):
        return "a tensor" if isinstance(content, StoredTensor) else f"a {type(content).__name__}"
    keys = [str(key)[:40] for key in list(content)[:5]]
    return f"a dict of {', '.join(keys)}" if keys else "an empty dict"


def _plain_names(names: Collection[str], path: Path) -> dict[str, str]:
    """Return the name in the file by plain name. Raises :class:`ModelError` where two become one."""
    plain: dict[str, str] = {}
    is_apple = any(str(name).startswith("text_encoder.") for name in names)  # MobileCLIP, whose names open_clip knows
    for name in names:
        short = WRAPPERS.sub("", str(name))
        if not is_apple and (outer := OUTER.match(short)):
            short = short[outer.end() :]
        short = TRAINED_HEAD.sub(HEAD, short)
        if NOT_WEIGHTS.fullmatch(short) or short in OPENAI_NUMBERS:
            continue
        if short in plain:
            raise ModelError(f"{path} holds two models: {plain[short]} and {name}", "save one of them by itself")
        plain[short] = name
    if "conv1.weight" in plain and "ln_post.weight" in plain:  # an image tower by itself
        return {f"visual.{short}": name for short, name in plain.items()}
    return plain


def _with_bias(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    weight = tensors.get(f"{HEAD}weight")
    if weight is not None and f"{HEAD}bias" not in tensors:
        tensors[f"{HEAD}bias"] = weight.new_zeros(len(weight))
    return tensors
