"""Any image-classification set of the datasets library as a wisepatch task: ``hf:owner/name[:config]`` or ``hf:./path``."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import wisepatch as wp
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.samples import Subset
from wisepatch.datasets.splits import SPLIT_WORDS, SPLITS, split_problem
from wisepatch.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

HUB = "https://huggingface.co/datasets"
CHOICES = ("image", "label", *SPLITS)
USUAL = {"train": ("train", "training"), "val": ("validation", "val", "valid", "dev"), "test": ("test", "testing")}
TEST_FRACTION = 0.2
SECONDS = 10  # to wait for the Hub's first answer


@dataclass(frozen=True)
class Source:
    """Where a set lies, taken from its name: ``path`` on the Hub or on the disk, and what was chosen after the ``?``."""

    name: str
    path: str
    config: str | None
    choices: dict[str, str]

    @property
    def folder(self) -> Path | None:
        """Return the folder of a set on the disk, ``None`` for one of the Hub."""
        return Path(self.path).expanduser() if self.path.startswith((".", "/", "~")) else None

    @property
    def saved(self) -> bool:
        """Say whether ``save_to_disk`` wrote the folder."""
        return self.folder is not None and any(
            (self.folder / name).is_file() for name in ("dataset_dict.json", "state.json")
        )

    @property
    def where(self) -> str:
        """Return what the datasets library is asked for."""
        return self.path if self.folder is None else str(self.folder)


@dataclass(frozen=True)
class Description:
    """Describe what is known of a set before its images are read. ``labels`` gives the names of the classes by column."""

    columns: dict[str, str]
    images: list[str]
    labels: dict[str, list[str]]
    splits: dict[str, int | None]
    licence: str = ""


@dataclass(frozen=True)
class Pictures:
    """The images of one split and their classes; ``data`` is a table of the datasets library, read where it lies."""

    data: Any
    image: str
    label: str
    name: str
    transform: Any = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.data)

    @cached_property
    def labels(self) -> list[int]:
        """The labels of all images, -1 where there is none; decodes no image."""
        table = self.data.select_columns([self.label]).with_format("arrow")[:]
        return [-1 if label is None else label for label in table.column(self.label).to_pylist()]

    def fingerprint(self) -> str:
        """The fingerprint that the datasets library keeps of the table, and the columns that are read."""
        return f"{self.data._fingerprint} {self.image} {self.label}"

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return one image as RGB and its label; one that cannot be decoded is a :class:`DataError` that names it."""
        from PIL import Image

        try:
            row = self.data[index]
            if row[self.image] is None:
                raise ValueError("there is none")
            image = rgb(row[self.image])
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{self.name}: image {index} cannot be read: {error}",
                "take it out (Dataset.filter), save the rest with save_to_disk, and name that as hf:./path",
            ) from error
        return (self.transform(image) if self.transform else image), int(row[self.label])


def rgb(image: Any) -> Any:
    """Any image as 8-bit RGB; 16-bit ones are scaled. Raises :class:`ValueError` where the range of pixels is unknown."""
    import numpy as np
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"its pixels are of mode {image.mode!r}, whose range is unknown")
    return image.convert("RGB")


@wp.hookimpl
def find_dataset(name: str) -> wp.Dataset | None:
    """The set that ``hf:`` names; asks the Hub for its columns, or reads them from the disk.

    Raises :class:`DataError` for a set that is not there, and for one without images, classes or a split that can be used.
    """
    if not name.startswith("hf:"):
        return None
    source = parse(name)
    known = describe(source)
    image = pick(source, "image", known.images, known)
    label = pick(source, "label", list(known.labels), known)
    splits = assign(source, known)
    held_out = "test" not in splits
    own = own_splits(known, splits)
    splits |= {name: name for name in own}
    sizes = {split: known.splits[splits[split]] for split in splits}
    return wp.Dataset(
        name=name,
        classes=tuple(each.replace("_", " ").strip() for each in known.labels[label]),
        open=partial(open_split, source, image, label, splits),
        templates=TEMPLATES["simple"],
        splits=(*(("train", "test") if held_out else (split for split in SPLITS if split in splits)), *own),
        family="huggingface",
        source=f"{HUB}/{source.path}" if source.folder is None else str(source.folder),
        counts={} if held_out else {split: size for split, size in sizes.items() if size},
        licence=known.licence,
        downloads=source.folder is None,
    )


def parse(name: str) -> Source:
    """Take ``hf:owner/name[:config][?column=...]`` apart. Raises :class:`DataError` for a choice that there is not."""
    where, _, query = name.removeprefix("hf:").partition("?")
    choices = dict(parse_qsl(query, keep_blank_values=True))
    unknown = [key for key in choices if key not in CHOICES]
    if unknown or (query and not choices):
        raise DataError(f"{name}: {(unknown or [query])[0]!r} is nothing to choose", f"choose {', '.join(CHOICES)}")
    on_disk = where.startswith((".", "/", "~"))
    path, _, config = (where, "", "") if on_disk and Path(where).expanduser().is_dir() else where.partition(":")
    if not path or (not on_disk and path.count("/") > 1):
        raise DataError(
            f"{name} names no dataset", "write hf:owner/name, hf:owner/name:config, or hf:./path for a saved one"
        )
    return Source(name, path, config or None, choices)


def describe(source: Source) -> Description:
    """Columns, classes and splits of a set; those of the Hub are remembered for the time without a network."""
    if source.folder is not None:
        if not source.folder.is_dir():
            raise DataError(
                f"{source.name}: there is no folder {source.folder}", "save a dataset there with its save_to_disk"
            )
        return _saved(source) if source.saved else _built(source)
    import datasets

    key = hashlib.sha256(f"{source.path} {source.config}".encode()).hexdigest()[:16]
    remembered = Path(datasets.config.HF_DATASETS_CACHE) / "wisepatch" / f"{key}.json"
    problem = unreachable(source)
    if problem:
        with contextlib.suppress(OSError, ValueError, TypeError):  # not there, or of another version
            return Description(**json.loads(remembered.read_text(encoding="utf-8")))
        raise DataError(
            f"{source.name} cannot be looked up: {problem}",
            f"check the name at {HUB}/{source.path} and the network; for a private set run `hf auth login`",
        )
    known = _built(source)
    with contextlib.suppress(OSError):
        remembered.parent.mkdir(parents=True, exist_ok=True)
        remembered.write_text(json.dumps(vars(known)), encoding="utf-8")
    return known


def unreachable(source: Source) -> str:
    """Why the Hub does not know the set, or does not answer; empty where it does. One request, without repeats."""
    from huggingface_hub import HfApi

    try:
        HfApi().dataset_info(source.path, timeout=SECONDS)
    except Exception as error:  # noqa: BLE001 -- the HTTP library below the Hub's is another one in each major version
        return reason(error)
    return ""


def _saved(source: Source) -> Description:
    tables = _tables(source)
    first = next(iter(tables.values()))
    return _description(first.features, {name: len(table) for name, table in tables.items()}, first.info.license)


def _tables(source: Source) -> dict[str, Any]:
    """The tables of a saved set by split; one that was saved alone is ``train`` where it does not say what it is."""
    import datasets

    try:
        loaded = datasets.load_from_disk(source.where)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{source.name} cannot be read: {reason(error)}", "save it again with save_to_disk") from error
    if not isinstance(loaded, datasets.DatasetDict):
        named = str(loaded.split).lower()
        loaded = {named if any(named in usual for usual in USUAL.values()) else "train": loaded}
    if not loaded:
        raise DataError(f"{source.name} has no splits", "save it again with save_to_disk")
    return dict(loaded)


def _built(source: Source) -> Description:
    """Return what the builder of a set knows, with the columns of the first file of each split where it knows none."""
    import datasets

    try:
        builder = datasets.load_dataset_builder(source.where, source.config)
        splits: dict[str, int | None] = {
            name: split.num_examples or None for name, split in (builder.info.splits or {}).items()
        }
        if builder.info.features is None or not splits:
            splits = dict.fromkeys(builder.as_streaming_dataset())
    except Exception as error:
        if isinstance(error, ValueError) and "config" in str(error).lower():
            offered = datasets.get_dataset_config_names(source.where)
            if source.config not in offered:
                raise DataError(
                    f"{source.name}: {'no such configuration' if source.config else 'it has several configurations'}",
                    f"name one as hf:{source.path}:CONFIG: {', '.join(offered)}",
                ) from error
        raise DataError(f"{source.name} cannot be looked up: {reason(error)}", _hint(source)) from error
    return _description(builder.info.features or {}, splits, builder.info.license)


def _description(features: Any, splits: dict[str, int | None], licence: Any) -> Description:
    import datasets

    return Description(
        columns={name: type(feature).__name__ for name, feature in features.items()},
        images=[name for name, feature in features.items() if isinstance(feature, datasets.Image)],
        labels={name: list(each.names) for name, each in features.items() if isinstance(each, datasets.ClassLabel)},
        splits={str(name): size for name, size in splits.items()},
        licence=licence if isinstance(licence, str) else "",
    )


def pick(source: Source, kind: str, fitting: list[str], known: Description) -> str:
    """The column of ``kind``: the chosen one, or the only one. Raises :class:`DataError` that lists all columns."""
    chosen = source.choices.get(kind)
    if chosen in fitting:
        return chosen
    if chosen is None and len(fitting) == 1:
        return fitting[0]
    needed = {"image": "Image", "label": "ClassLabel"}[kind]
    columns = ", ".join(f"{name} ({feature})" for name, feature in known.columns.items()) or "none"
    if chosen is not None:
        problem = f"{chosen!r} is no column of type {needed}"
    else:
        problem = f"it has {len(fitting) or 'no'} column{'' if len(fitting) == 1 else 's'} of type {needed}"
    hint = (
        f"choose one: hf:{source.path}?{kind}={' or '.join(fitting)}" if fitting else f"a task needs a {needed} column"
    )
    raise DataError(f"{source.name}: {problem}; its columns are {columns}", hint)


def assign(source: Source, known: Description) -> dict[str, str]:
    """Return which split of the set is ``train``, ``val`` and ``test``; without ``test``, that is to be cut from ``train``."""
    offered = {name.lower(): name for name in known.splits}
    asked = {split: name for split, name in source.choices.items() if split in SPLITS}
    listed = ", ".join(known.splits) or "none"
    for split, name in asked.items():
        if name not in known.splits:
            raise DataError(f"{source.name}: it has no split {name!r} for {split}", f"its splits are {listed}")
    found = dict(asked)
    for split, usual in USUAL.items():
        name = next((offered[each] for each in usual if each in offered), None)
        if split not in asked and name is not None and name not in asked.values():
            found[split] = name
    if not found and len(offered) == 1:
        found["train"] = next(iter(known.splits))
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    if not found:
        raise DataError(
            f"{source.name}: none of its splits ({listed}) is called train or test",
            f"say which is which: hf:{source.path}?train=NAME&test=NAME",
        )
    return found


def own_splits(known: Description, splits: dict[str, str]) -> list[str]:
    """Return the other splits, that are evaluated by their own names (``hf:owner/name@sketch``)."""
    own: list[str] = []
    for name in known.splits:
        if name not in splits.values() and name.lower() not in SPLIT_WORDS and not split_problem([*own, name]):
            own.append(name)
    return own


def open_split(
    source: Source, image: str, label: str, splits: dict[str, str], split: str, root: Path, transform: Any = None
) -> Pictures | Subset:
    """Open one split; sets of the Hub are downloaded to ``root/huggingface``. Raises :class:`DataError` with the reason."""
    import datasets

    data = _table(source, splits.get(split, splits.get("train", "")), root)
    data = data.select_columns([image, label])
    if not data.features[image].decode:
        data = data.cast_column(image, datasets.Image())
    pictures = Pictures(data, image, label, f"{source.name} ({split})", transform)
    classes = len(data.features[label].names)
    without = sum(not 0 <= each < classes for each in pictures.labels)
    if without:
        raise DataError(
            f"{source.name}: {without} of the {len(pictures)} images of {split} have no label",
            f"the publisher withholds them; choose another split, such as hf:{source.path}?test=validation",
        )
    return held_out(pictures, split) if "test" not in splits and split in SPLITS else pictures


def held_out(pictures: Pictures, split: str) -> Subset:
    """The ``train`` or ``test`` part of a set without a test split: a fifth of the images is held out, seed 0."""
    import numpy as np

    order = np.random.RandomState(0).permutation(len(pictures)).tolist()  # the one generator whose numbers never change
    tested = max(int(len(order) * TEST_FRACTION), 1)
    return Subset(pictures, order[:tested] if split == "test" else order[tested:])


def _table(source: Source, name: str, root: Path) -> Any:
    import datasets

    if source.saved:
        return _tables(source)[name]
    offline = source.folder is None and bool(unreachable(source))
    try:
        with _offline() if offline else contextlib.nullcontext():
            return datasets.load_dataset(source.where, source.config, split=name, cache_dir=str(root / "huggingface"))
    except Exception as error:
        raise DataError(
            f"{source.name} is not below {root / 'huggingface'} and could not be loaded: {reason(error)}", _hint(source)
        ) from error


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """The datasets library looks into its cache at once, where it would ask the Hub six times in 23 seconds first."""
    import datasets

    kept, datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = kept


def _hint(source: Source) -> str:
    if source.folder is not None:
        return "give a folder that save_to_disk wrote, or one of parquet files"
    return f"see {HUB}/{source.path}; or load it yourself, save it with save_to_disk, and name it as hf:./path"


def reason(error: BaseException) -> str:
    """The first line of what went wrong, with the kind of error."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
