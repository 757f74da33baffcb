"""Read the settings of a model from elsewhere (``local-dir:``, ``hf-hub:``), and refuse those that ask for its own code to be run.

open_clip hands some of them on to transformers, which runs Python files of a model that says ``trust_remote_code`` or ``auto_map``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any

from wisepatch.config import SCHEMAS, ModelConfig
from wisepatch.errors import ModelError, WisepatchError
from wisepatch.files import is_file

CONFIG_NAME = "open_clip_config.json"
RUNS_CODE = frozenset({"trust_remote_code", "auto_map", "custom_pipelines", "code_revision"})
READ_BY_TRANSFORMERS = ("tokenizer_config.json", "config.json")
MAX_CONFIG_BYTES = 1 << 24
LARGEST = {
    "layers": 1024,
    "image_size": 8192,
    "size": 8192,
}  # settings that decide how much memory a model or an image takes
LARGEST_OTHER = 1 << 21
SAFE = "no code of a model is run; take one that needs none"


def read_description(config: ModelConfig, name: str) -> dict[str, Any]:
    """Return ``model_cfg`` and ``preprocess_cfg`` of a model with a schema; ``name`` is open_clip's spelling.

    Raises :class:`ModelError` for settings that cannot be read, are of other types or too large, or ask for code to be run.
    """
    folder = Path(name.removeprefix("local-dir:"))
    fetch = _from_folder(folder) if config.is_local else _from_hub(name.removeprefix("hf-hub:"))
    if config.is_local and not is_file(folder / CONFIG_NAME):
        raise ModelError(
            f"{config.model} holds no {CONFIG_NAME}",
            "a local-dir needs it, with the model_cfg, and the weights beside it",
        )
    path = fetch(CONFIG_NAME)
    try:
        description = read_json(path)
        model, preprocessing = description["model_cfg"], description.get("preprocess_cfg", {})
        _check_types(model, preprocessing)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{config.model}: {path} cannot be read: {error!r}"
        raise ModelError(reason, "it is the open_clip_config.json with the model_cfg") from error
    _refuse_code(config, path, description)
    for each in _other_settings(fetch, model["text_cfg"], local=config.is_local):
        try:
            _refuse_code(config, each, read_json(each))
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(
                f"{config.model}: {each} cannot be read: {error}", "it is JSON, as transformers writes it"
            ) from error
    return {"model_cfg": model, "preprocess_cfg": preprocessing}


def load_tokenizer(name: str) -> Any:
    """Make the tokenizer of a model (open_clip's spelling); one that needs code of its own is refused by transformers."""
    import open_clip

    text = (open_clip.get_model_config(name) or {}).get("text_cfg", {})
    if text.get("hf_tokenizer_name"):
        return open_clip.get_tokenizer(name, trust_remote_code=False)
    return _plain_tokenizer(name, json.dumps(text))


@cache  # CLIP's own takes as long as a small model; the settings are named because those of a folder may change
def _plain_tokenizer(name: str, _text_settings: str) -> Any:
    import open_clip

    return open_clip.get_tokenizer(name)


def _from_folder(folder: Path) -> Callable[[str], Path]:
    return folder.joinpath


def _from_hub(repository: str) -> Callable[[str], Path]:
    def fetch(file: str) -> Path:
        import open_clip

        return Path(open_clip.pretrained.download_pretrained_from_hf(repository, filename=file))

    return fetch


def _other_settings(fetch: Callable[[str], Path], text: dict[str, Any], *, local: bool) -> Iterator[Path]:
    """Yield the files besides open_clip's own that transformers would look into for code, those that there are."""
    sources = [fetch]
    names = [text.get("hf_model_name"), None if local else text.get("hf_tokenizer_name")]
    for name in filter(None, names):
        sources.append(_from_folder(Path(name)) if Path(name).is_dir() else _from_hub(name.removeprefix(SCHEMAS[0])))
    for source in sources if any(name.startswith("hf_") for name in text) else ():
        for file in READ_BY_TRANSFORMERS:
            try:
                path = source(file)
            except Exception:  # noqa: BLE001 -- whatever the Hub's library raises: transformers does not get it either
                continue
            if path.is_file():
                yield path


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of up to 16 MB. Raises :class:`ValueError` and :class:`OSError`."""
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"it has more than {MAX_CONFIG_BYTES >> 20} MB")
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    return content


def _settings(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield every setting with its name, at any depth; the items of a list under the name of the list."""
    waiting = [("", content)]
    while waiting:
        name, value = waiting.pop()
        yield name, value
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += ((name, item) for item in value)


def _refuse_code(config: ModelConfig, path: Path, content: dict[str, Any]) -> None:
    for name, value in _settings(content):
        foreign = name == "tokenizer_class" and isinstance(value, str) and not value.isidentifier()
        if value and (name in RUNS_CODE or foreign):
            raise ModelError(f"{config.model} asks to run code of its own: {name} in {path}", SAFE)


def _check_types(model: dict[str, Any], preprocessing: dict[str, Any]) -> None:
    """Raise :class:`ValueError` for parts that are no objects, and for numbers that no model has."""
    parts = {
        "model_cfg": model,
        "preprocess_cfg": preprocessing,
        **{f"{each}_cfg": model[f"{each}_cfg"] for each in ("text", "vision")},
    }
    for part, settings in parts.items():
        if not isinstance(settings, dict):
            raise ValueError(f"{part} is {type(settings).__name__}, not an object")
    for name, value in _settings([model, preprocessing]):
        if isinstance(value, int | float) and not abs(value) <= LARGEST.get(name, LARGEST_OTHER):
            raise ValueError(f"{name} is a number that no model has")
    for name in ("hf_model_name", "hf_tokenizer_name"):
        if not isinstance(model["text_cfg"].get(name, ""), str):
            raise ValueError(f"{name} is no text")


@contextmanager
def loading(thing: str, hint: str) -> Iterator[None]:
    """Keep open_clip's log lines off the terminal, and turn its errors, of whatever kind, into a :class:`ModelError`."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    except ImportError as error:
        raise ModelError(f"{thing} needs a package that is not installed", f"install it with pip: {error}") from error
    except WisepatchError:
        raise
    except Exception as error:
        raise ModelError(f"{thing}: could not be fetched or read: {_reason(error)}", hint) from error
    finally:
        logging.disable(previous)


def _reason(error: BaseException) -> str:
    """Return what a library's error says, or what the Hub answered, which its library hides behind advice on the network."""
    told = next(filter(answered_status, causes(error)), error)
    plain = isinstance(told, RuntimeError | OSError | ValueError)
    return one_line(told) if plain else f"{type(told).__name__}: {one_line(told)}"


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came of, the innermost last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def answered_status(error: BaseException) -> int | None:
    """Return the status that a server answered with, ``None`` for an error that is no answer."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def one_line(error: BaseException) -> str:
    """Return what an error says, cut to 400 letters."""
    return shorten(str(error), 400, placeholder="...")
