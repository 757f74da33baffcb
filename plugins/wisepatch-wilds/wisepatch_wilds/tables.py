"""Reading the CSV files of WILDS: the columns that are needed, and errors that say what is wrong with a file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from wisepatch.datasets.published.readers import missing
from wisepatch.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

SOURCE = "https://wilds.stanford.edu/downloads"


def need(task: str, root: Path, layout: str, archive: str, paths: Sequence[Path]) -> None:
    """Raise :class:`DataError` that names the first of ``paths`` that does not exist, and where to get all of them."""
    for path in paths:
        if not path.exists():
            raise missing(task, root, [layout], f"{SOURCE} (the archive is {archive})", f"there is no {path}")


def read_table(path: Path, columns: Sequence[str], archive: str) -> Any:
    """The ``columns`` of a CSV as a DataFrame of text. Raises :class:`DataError` for one that is broken or lacks a column."""
    import pandas as pd

    hint = f"take the file from {archive} again"
    try:
        # As text throughout: an empty cell stays empty, and a number that is none can be named.
        table = pd.read_csv(path, usecols=lambda name: name in columns, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors, as is a text that is not UTF-8
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}", hint) from error
    absent = [name for name in columns if name not in table.columns]
    if absent:
        raise DataError(f"{path} has no column {' and no column '.join(absent)}", hint)
    return table


def known(path: Path, column: Any, words: Iterable[str], archive: str) -> None:
    """Raise :class:`DataError` that names the first line of a column (a pandas Series) whose word is none of ``words``."""
    strange = ~column.isin(list(words))
    if strange.any():
        line = int(strange.to_numpy().argmax())
        raise DataError(
            f"{path}, row {line + 1}: {column.name} {column.iloc[line]!r} is none of the published ones",
            f"take the file from {archive} again",
        )


def all_there(task: str, split: str, folder: Path, names: Sequence[str], archive: str) -> None:
    """Raise :class:`DataError` where ``folder`` lacks some of the files ``names``; lists the folder once."""
    with os.scandir(folder) as entries:
        present = {entry.name for entry in entries}
    absent = [name for name in names if name not in present]
    if absent:
        raise DataError(
            f"{task} ({split}): {len(absent)} of {len(names)} images are not in {folder}, the first {absent[0]}",
            f"unpack all of {archive}",
        )
