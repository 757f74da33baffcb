"""Read a model from a file of weights, a folder of open_clip's, transformers' or PEFT's, or a repository of such files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.config import SCHEMAS, ModelConfig
from wisepatch.errors import ModelError
from wisepatch.files import expanded, is_folder, sha256
from wisepatch.models import transformers_names
from wisepatch.models.model_files import CONFIG_NAME, loading, read_description, read_json
from wisepatch.weights.state_dicts import HEAD, FoundWeights, read_state_dict

if TYPE_CHECKING:
    import torch

HUB, LOCAL = SCHEMAS
OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin",
)  # fmt: skip  # the first that is there
TRANSFORMERS_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
CLASSIFIER, CLASSIFIER_WEIGHTS = "classifier.json", "classifier.safetensors"  # as export writes a trained head
JSON_FILES = ("adapter_config.json", CONFIG_NAME, "config.json", "preprocessor_config.json", CLASSIFIER)

Fetch = Callable[[str], Path | None]


@dataclass
class Source:
    """A model as it was found: ``label`` is what the user wrote, ``model`` what it says it is, ``beyond`` what is unlike OpenAI's.

    ``head`` names task and classes of a head, where the source tells them. An adapter has no weights of its own, but ``added`` and
    ``replaced`` of those of its ``base``.
    """

    label: str
    found: FoundWeights = field(default_factory=lambda: FoundWeights({}))
    digest: str = ""
    model: ModelConfig | None = None
    beyond: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] | None = None
    base: str = ""
    added: dict[str, torch.Tensor] = field(default_factory=dict)
    replaced: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def is_head(self) -> bool:
        """Tell whether this is a classification head without an image tower."""
        return bool(self.found.head) and not self.found.model

    @property
    def is_adapter(self) -> bool:
        """Tell whether this changes the weights of another model."""
        return bool(self.added or self.replaced)

    @property
    def stem(self) -> str:
        """Return a short name: of the file without its suffix, or of the folder or repository."""
        return (
            Path(self.label).stem
            if self.label.startswith(HUB)
            else expanded(self.label.removeprefix(LOCAL)).resolve().stem
        )


def read_source(word: str) -> Source:
    """Read a file of weights, a folder, or ``hf-hub:OWNER/NAME``. Raises :class:`ModelError` that names it and what is wrong."""
    if word.startswith(HUB):
        repository = word.removeprefix(HUB)
        with loading(word, "look at its name, and whether the network and a token of yours reach it"):
            return _read_folder(word, _from_hub(repository))
    path = expanded(word.removeprefix(LOCAL))
    if is_folder(path):
        with loading(word, "give a folder that open_clip, transformers or PEFT saved"):
            return _read_folder(word, lambda name: path / name if (path / name).is_file() else None)
    found = read_state_dict(path)
    if transformers_names.is_transformers(found.tensors):
        found.tensors = transformers_names.to_open_clip(found.tensors)
    return Source(word, found, sha256(path))


def _from_hub(repository: str) -> Fetch:
    """Return what fetches a file of a repository: settings are there or not, weights are fetched when they are asked for."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    folder = Path(snapshot_download(repository, allow_patterns=["*.json"]))

    def fetch(name: str) -> Path | None:
        if name in JSON_FILES or name.endswith(".index.json"):
            return folder / name if (folder / name).is_file() else None
        try:
            return Path(hf_hub_download(repository, name))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            return None

    return fetch


def _read_folder(label: str, fetch: Fetch) -> Source:
    if path := fetch("adapter_config.json"):
        config = read_json(path)
        weights = _first(label, fetch, ADAPTER_WEIGHTS)
        added, replaced = transformers_names.adapter_deltas(config, read_state_dict(weights).tensors, label)
        return Source(
            label,
            digest=sha256(weights),
            base=str(config.get("base_model_name_or_path") or ""),
            added=added,
            replaced=replaced,
        )
    if path := fetch(CONFIG_NAME):
        return _read_open_clip(label, path, fetch)
    if path := fetch("config.json"):
        return _read_transformers(label, read_json(path), fetch)
    raise ModelError(
        f"{label} holds no settings of a model", f"a folder has {CONFIG_NAME}, config.json or adapter_config.json"
    )


def _first(label: str, fetch: Fetch, names: tuple[str, ...]) -> Path:
    """Return the first file of weights that is there, and fetch the shards that it names."""
    for name in names:
        if path := fetch(name):
            shards = set(read_json(path).get("weight_map", {}).values()) if name.endswith(".index.json") else ()
            for shard in shards:
                fetch(str(shard))
            return path
    raise ModelError(f"{label} holds no weights", f"it needs {' or '.join(names)}")


def _read_open_clip(label: str, config: Path, fetch: Fetch) -> Source:
    """Read a folder of open_clip's: its settings travel with the weights, unless its tokenizer lies in the folder too."""
    is_hub = label.startswith(HUB)
    model = ModelConfig(label if is_hub else f"{LOCAL}{config.parent.resolve()}", "")
    description = read_description(model, model.model)
    weights = _first(label, fetch, OPEN_CLIP_WEIGHTS)
    found = read_state_dict(weights)
    if not is_hub and not description["model_cfg"]["text_cfg"].get("hf_tokenizer_name"):
        model = ModelConfig(config.parent.resolve().name, "", json.dumps(description))
    return Source(label, found, sha256(weights), model, head=_head_beside(fetch, found))


def _head_beside(fetch: Fetch, found: FoundWeights) -> dict[str, Any] | None:
    """Add the head that export writes beside a model of any format; return what is said of it, ``None`` where there is none."""
    about, weights = fetch(CLASSIFIER), fetch(CLASSIFIER_WEIGHTS)
    if not (about and weights):
        return None
    found.tensors |= {
        name: tensor for name, tensor in read_state_dict(weights).tensors.items() if name.startswith(HEAD)
    }
    return read_json(about)


def _read_transformers(label: str, config: dict[str, Any], fetch: Fetch) -> Source:
    settings = transformers_names.settings(config, label)
    weights = _first(label, fetch, TRANSFORMERS_WEIGHTS)
    found = FoundWeights(
        transformers_names.to_open_clip(read_state_dict(weights).tensors), settings["activation"], settings["heads"]
    )
    beyond: dict[str, Any] = {"towers": settings["towers"]} if settings["towers"] else {}
    if path := fetch("preprocessor_config.json"):
        preprocessing = transformers_names.preprocessing(read_json(path))
        beyond |= {} if _is_default(preprocessing) else {"preprocess_cfg": preprocessing}
    return Source(label, found, sha256(weights), beyond=beyond, head=_head_beside(fetch, found))


def _is_default(preprocessing: dict[str, Any]) -> bool:
    """Tell whether images are prepared as for OpenAI's models."""
    import open_clip

    usual = open_clip.transform.PreprocessCfg()
    return all(
        value == (list(getattr(usual, name)) if isinstance(value, list) else getattr(usual, name))
        for name, value in preprocessing.items()
    )
