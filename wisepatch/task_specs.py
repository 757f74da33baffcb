"""Read how tasks are written: ``NAME@val``, ``typo:NAME``, ``corrupt:NAME:fog:3``, ``photos?group=...``, and lists by comma."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from wisepatch.config import check_named
from wisepatch.datasets.base import Dataset
from wisepatch.datasets.csv_listing import URL
from wisepatch.datasets.reading import Reading, split_word
from wisepatch.datasets.splits import ALL, SPLITS
from wisepatch.errors import DataError, UnknownNameError, UsageError
from wisepatch.plugins import registry

TYPO, CORRUPT = "typo:", "corrupt:"
WRAPPERS = (TYPO, CORRUPT)  # of other tasks
DISTRIBUTION_OF_SCHEME = {"hf:": "wisepatch-huggingface"}
DISTRIBUTION_OF_TASK = {  # tasks of this project's plugins
    **dict.fromkeys(("fmow", "fmowid", "fmowood", "iwildcam", "iwildcamid", "iwildcamood"), "wisepatch-wilds"),
    "usps": "wisepatch-usps",
}


def existing(word: str) -> Path | None:
    """Return the path that ``word`` names if something lies there; ``None`` for names that cannot be paths, too."""
    try:
        path = Path(word).expanduser()
        return path if word.strip() and path.exists() else None
    except (OSError, RuntimeError, ValueError):  # a name of 300 letters, ~nobody, a NUL
        return None


def path_of(word: str) -> tuple[Path | None, str]:
    """Return the path that a word names, with the options after a question mark, where there is no such path with them."""
    if whole := existing(word):
        return whole, ""
    name, options = split_word(word)
    return (existing(name), options) if options else (None, "")


def unwrapped(name: str) -> tuple[str, str, str]:
    """Take ``typo:`` or ``corrupt:`` off a word; return it, the word inside, and what stands behind that (``:fog:3``)."""
    scheme = next((each for each in WRAPPERS if name.lower().startswith(each) and not existing(name)), "")
    inner, suffix = name[len(scheme) :], ""
    if scheme == CORRUPT and not existing(inner):
        from wisepatch.datasets.corruptions import split_corruption

        inner, corruption = split_corruption(inner)
        suffix = str(corruption)
    return scheme, inner, suffix


def class_options(classnames: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Return class names and prompts as options of a command; names with a comma in them need a file, ``names.txt``."""
    commas = any("," in name for name in classnames)
    named = ["--classnames", "names.txt" if commas else ",".join(classnames)] if classnames else []
    return named + [f"--template={template}" for template in templates]


def listed_by_comma(words: str) -> list[str]:
    """Take a list apart; a path with a comma in its name stays whole, also with a split, options or what is made of it.

    Raises :class:`UsageError` for a list of commas alone.
    """
    if existing(words):
        return [words]
    pieces, parts = words.split(","), []
    while pieces:
        end = next((end for end in range(1, len(pieces) + 1) if own_path(",".join(pieces[:end]).strip())), 1)
        part, pieces = ",".join(pieces[:end]), pieces[end:]
        parts.append(part if existing(part) else part.strip())
    named = [part for part in parts if part]
    check_named(words, named)
    return named


def own_path(word: str) -> Path | None:
    """Return the folder or CSV that a task is made of, through whatever stands around its path; ``None`` where there is none."""
    name, at, _ = word.rpartition("@")
    scheme, inner, _ = unwrapped(word)
    return path_of(word)[0] or (own_path(name) if at else None) or (own_path(inner) if scheme else None)


def with_reading(word: str, reading: Reading) -> str:
    """Return the word for a task, with the options of ``reading`` where it is a folder or CSV that has none of its own."""
    name, at, split = word.rpartition("@")
    if not at or split.lower() not in (*SPLITS, ALL) or existing(word):
        name, at, split = word, "", ""
    scheme, inner, suffix = unwrapped(name)
    if existing(inner):
        return f"{scheme}{inner}{reading.query()}{suffix}{at}{split}"
    return f"{scheme}{with_reading(inner, reading)}{suffix}{at}{split}" if scheme else word


def without_split(spec: str) -> tuple[str, str | None]:
    """Take ``@val`` (or the papers' ``Val``) off a word. Raises :class:`UsageError` for an empty name or split."""
    spec = spec if existing(spec) else spec.strip()
    name, at, split = spec.rpartition("@")
    if not at or "/" in split or existing(spec):
        name, split = spec, ""
    elif not split:
        raise unknown_split(spec, split)
    if not name.strip():
        raise UsageError(f"the task name {spec!r} is empty", "`wisepatch datasets` lists those known by name")
    scheme, inner, suffix = unwrapped(name)
    known, word = registry().names, inner.lower()
    if word not in known and word.endswith("val") and word[:-3] in known and existing(name) is None:
        return f"{scheme}{inner[:-3]}{suffix}", split or "val"
    return name, split or None


def split_named(dataset: Dataset, word: str | None, spec: str) -> str | None:
    """Return the split that a word names, in any case. Raises :class:`UsageError` for none of the usual and the dataset's own."""
    if word is None:
        return None
    known = {split.lower(): split for split in (*SPLITS, ALL, *dataset.available_splits)}
    if word.lower() not in known:
        raise unknown_split(spec, word, dataset.available_splits)
    return known[word.lower()]


def unknown_split(spec: str, word: str, known: Iterable[str] = SPLITS) -> UsageError:
    """Return the error for a word after ``@`` that is no split, or is followed by what belongs before it."""
    reason, known = f"unknown split {word!r} in task {spec!r}", (*known, ALL)
    split = re.split("[?:]", word)[0]
    rest = word.removeprefix(split)
    if rest and split.lower() in known:
        return UsageError(reason, f"a split comes last: {spec.removesuffix(f'@{word}')}{rest}@{split}")
    hint = "check the path of a folder with @ in its name; a/@val is the split val of a folder"
    return UsageError(reason, f"splits are {', '.join(known)}; {hint}")


def look_up(name: str) -> Dataset:
    """Return the dataset of a word without a split. Raises :class:`DataError` or :class:`UnknownNameError` where there is none."""
    if registered := _registered_name(name):
        return registry().datasets[registered]
    dataset = registry().find_dataset(name)
    if dataset is None:
        raise _unknown(name)
    return dataset


def canonical(name: str) -> str:
    """Return the word that finds a task again from any folder."""
    if registered := _registered_name(name):
        return registered
    path, options = path_of(name)
    if path:
        return f"{path.resolve()}{Reading.parse(options).query()}"
    scheme, inner, suffix = unwrapped(name)
    return f"{scheme}{canonical(inner)}{suffix}" if scheme else name


def _registered_name(name: str) -> str | None:
    """Find a registered name in any case, and imagenet-a or CIFAR-10 where no such file lies about."""
    names = registry().names
    near = None if existing(name) else names.get(_letters(name))
    return names.get(name.lower(), near)


def _letters(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())


def _unknown(name: str) -> DataError | UnknownNameError:
    if URL.match(name):
        return DataError(f"{name} is an address", "fetch the images, and name their folder or CSV")
    if scheme := re.match(r"[a-z][a-z0-9-]+:", name):
        known = DISTRIBUTION_OF_SCHEME.get(scheme[0])
        hint = f"install {known}" if known else "`wisepatch plugins` lists those installed"
        return DataError(f"no plugin knows what {scheme[0]} means in the task {name!r}", hint)
    if "/" in name or name.lower().endswith(".csv"):
        hint = "check the path; `wisepatch datasets` lists the tasks known by name"
        return DataError(f"there is no folder or CSV {name}", hint)
    skipped = registry().skipped
    owner = DISTRIBUTION_OF_TASK.get(_letters(name))
    if owner and owner not in {plugin.distribution.partition(" ")[0] for plugin in skipped}:
        return DataError(f"the task {name!r} is of the plugin {owner}, which is not installed", f"install {owner}")
    reasons = ", ".join(f"{plugin.name} ({plugin.problem})" for plugin in skipped)
    note = f"; plugins that were skipped: {reasons}" if reasons else ""
    return UnknownNameError("task", name, registry().datasets, f"`wisepatch datasets` lists all of them{note}")
