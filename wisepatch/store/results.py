"""Results on disk: an append-only ``results.jsonl``, one measurement a line that ends with its sha256, to and from pandas.

``training`` names how the end was made, ``method`` how weights were merged, ``params`` (a dict) its parameters beside ``alpha``.
The papers' own wide records are read as well (:mod:`~wisepatch.store.wide_records`).
"""

from __future__ import annotations

import json
import mmap
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.counting import count
from wisepatch.errors import ResultsError, StoreError
from wisepatch.files import expanded, refused, seal, unseal
from wisepatch.locks import LOCK, locked
from wisepatch.store.result_rows import COLUMNS, EXTRA, check_row, with_training
from wisepatch.store.wide_records import from_wide

if TYPE_CHECKING:
    from io import FileIO

    import pandas as pd

    from wisepatch.store.checkpoints import Store

STORE, RESULTS = "wisepatch-store", "results.jsonl"
PRINTED = ("result", "wide")  # the types of records of --json that hold results
MAX_LISTED = 8  # runs that a message names
RUN = re.compile(rb'"run": *("(?:[^"\\]|\\.)*")')
RUN_NAME = re.compile(rb'"run_name": *("(?:[^"\\]|\\.)+")')


class RowsNotKeptError(StoreError):
    """Results that were measured and cannot be kept; ``rows`` holds them, to be shown."""

    def __init__(self, error: StoreError, rows: Sequence[Mapping[str, Any]]) -> None:
        """Say what ``error`` says; rows that it holds already come first."""
        super().__init__(error.message, error.hint)
        self.rows = [*getattr(error, "rows", ()), *rows]
        stand = count(
            len(self.rows),
            "result that was measured stands above, and is",
            "results that were measured stand above, and are",
        )
        self.add_note(f"{stand} kept nowhere")


@contextmanager
def showing(rows: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Give rows that were measured to a :class:`StoreError` that ends the command, so that they are shown."""
    try:
        yield
    except StoreError as error:
        raise RowsNotKeptError(error, rows) from error


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Append ``rows`` in one write under a lock, stamped with time and version; return them as written.

    Raises :class:`RowsNotKeptError` where the file cannot be written.
    """
    from importlib.metadata import version

    stamp = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "version": version("wisepatch")}
    complete = [{name: row.get(name) for name in COLUMNS} | dict(row) | stamp for row in rows]
    lines = b"".join(seal(row, indent=None) + b"\n" for row in complete)
    hint = "name another folder with --store or WISEPATCH_STORE"
    with showing(complete), refused(f"the results {path}", StoreError, hint):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f".{path.name}{LOCK}"), keep=True), path.open("ab+", buffering=0) as file:
            _append(file, lines)
    return complete


def _append(file: FileIO, lines: bytes) -> None:
    """Write all lines or, where the disk has no room for them, none."""
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":  # the last writer was killed in the middle of a line: leave it a line of its own
            lines = b"\n" + lines
    try:
        while lines:
            lines = lines[file.write(lines) :]
        os.fsync(file.fileno())
    except OSError:
        file.truncate(end)
        raise


def load(*places: Store | Path | str) -> pd.DataFrame:
    """Return the results of stores, folders of stores, or files, as one tidy table, one measurement a row.

    Without a place those of ``WISEPATCH_STORE`` or ``./wisepatch-store``. Lines that cannot be read are a warning. Raises
    :class:`ResultsError` where there are no results.
    """
    default = os.environ.get("WISEPATCH_STORE", STORE)
    paths = [expanded(p) if isinstance(p, Path | str) else p.root for p in places or (default,)]
    frame, problems = read(*(path / RESULTS if path.is_dir() else path for path in paths))
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return frame


def read(*paths: Path | str) -> tuple[pd.DataFrame, list[str]]:
    """Read files of tidy or wide records as one tidy table; return it with one sentence for each line that could not be read.

    Raises :class:`ResultsError` where a file is not there, or no line of it can be read.
    """
    rows, problems = [], []
    for path in map(Path, paths):
        rows_of_file, problems_of_file = _read_rows(path)
        if not rows_of_file:
            raise ResultsError(f"{path} holds no results", next(iter(problems_of_file), "the file is empty"))
        rows += rows_of_file
        problems += problems_of_file
    return _to_frame(rows), problems


def read_runs(paths: Sequence[Path], runs: Sequence[str], *, merges: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """Read some runs, named as for :func:`pick_runs`, as :func:`read` does; lines of other runs are not parsed.

    Raises :class:`ResultsError` as these two do.
    """
    newest = _newest_run(paths, merges=merges) if "newest" in runs else None
    if not runs or "all" in runs or ("newest" in runs and newest is None):
        frame, problems = read(*paths)
        return pick_runs(frame, runs, merges=merges), problems
    names = {newest if run == "newest" and newest else run for run in runs}
    rows, problems = [], []
    for path in paths:
        # Wide records do not hold their run: it is called as their file.
        rows_of_file, problems_of_file = _read_rows(path, () if path.stem in names else sorted(names))
        rows += [row for row in rows_of_file if names & {row.get("run"), row.get("run_name") or None}]
        problems += problems_of_file
    for name in runs:
        if name != "newest" and name not in {row.get(field) for row in rows for field in ("run", "run_name")}:
            known = ", ".join(_run_names(paths)[-MAX_LISTED:])
            raise ResultsError(f"there is no run {name!r}", f"runs there are: {known}")
    return _to_frame(rows), problems


def _newest_run(paths: Sequence[Path], *, merges: bool) -> str | None:
    """Return the last run that swept alpha, or merged, found from the end; ``None`` where files have to be parsed to tell."""
    for path in reversed(paths):
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if b'"train_dataset"' in content[: 1 << 16]:  # wide records name no run
                    return None
                end = len(content)
                while (place := content.rfind(b'"patching"', 0, end)) >= 0:
                    begin, end = content.rfind(b"\n", 0, place) + 1, place
                    line_end = content.find(b"\n", place)
                    record = json.loads(content[begin : line_end if line_end >= 0 else None])
                    swept = record["patching"] is not None and record["alpha"] is not None
                    if swept or (merges and record.get("candidate") is not None):
                        return str(record["run"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
    return None


def _run_names(paths: Sequence[Path]) -> list[str]:
    names: dict[str, None] = {}
    for path in paths:
        for _, line in _lines(path):
            match, named = RUN.search(line), RUN_NAME.search(line)
            names[json.loads(match[1]) if match else path.stem] = None
            if named:
                names[json.loads(named[1])] = None
    return list(names)


def names_of_checkpoints(path: Path) -> dict[str, str]:
    """Return by the id of a checkpoint the name that was given to the newest run that measured it; empty without results."""
    names: dict[str, str] = {}
    with suppress(ResultsError):
        for _, line in _lines(path):
            if RUN_NAME.search(line):
                with suppress(ValueError, KeyError, TypeError, RecursionError):
                    row = json.loads(line)
                    names[str(row["checkpoint"])] = str(row["run_name"])
    return names


def _to_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame([{**dict.fromkeys((*COLUMNS, *EXTRA)), **row} for row in rows])
    for name in ("alpha", "value", "n", "ci_low", "ci_high"):
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    return frame


def _lines(path: Path, words: Sequence[str] = ()) -> Iterator[tuple[int, bytes]]:
    """Yield the lines in which one of some words stands, or all, and those cut short, with their numbers; or ResultsError."""
    needles = [word.encode(errors="surrogatepass") for word in words]
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                whole = line.startswith(b"{") and line.endswith(b"}\n")
                if not (needles and whole) or any(needle in line for needle in needles):
                    yield number, line
    except OSError as error:
        raise ResultsError(
            f"there are no results at {path}: {error.strerror}",
            "run `wisepatch interpolate` or `wisepatch patch` first, or name a file of results",
        ) from error


def _read_rows(path: Path, runs: Sequence[str] = ()) -> tuple[list[dict[str, Any]], list[str]]:
    """Parse a file, or the lines in which the name of a run stands."""
    words = list(dict.fromkeys(json.dumps(run, ensure_ascii=escaped) for run in runs for escaped in (True, False)))
    rows: list[dict[str, Any]] = []
    problems = []
    for number, line in _lines(path, words):
        if not line.strip():
            continue
        try:
            record = unseal(line.strip())
            if record.get("type", "result") not in PRINTED:  # a choice, an error: what --json prints beside results
                continue
            tidy = "metric" in record and "value" in record
            of_line = [with_training(record)] if tidy else from_wide(record, path.stem)
            for row in of_line:
                check_row(row, required=("task", "metric") if tidy else ())
            rows.extend(of_line)
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            problems.append(f"{path}, line {number} is not a result and was left out: {str(error)[:200]}")
    return rows, problems


def result_problems(path: Path) -> list[str]:
    """Return one sentence for each line that is no result, or not as it was written."""
    return _read_rows(path)[1] if path.exists() else []


def pick_runs(frame: pd.DataFrame, runs: Sequence[str], *, merges: bool = False) -> pd.DataFrame:
    """Return the rows of some runs, named by id or by the name that they were given.

    ``all`` (also when none is named) are all runs, ``newest`` is the last one that swept alpha, or with ``merges`` measured the
    candidates of a merge.

    Raises :class:`ResultsError` for a run that is not there, and where no run swept alpha.
    """
    if not runs or "all" in runs:
        return frame
    if "newest" in runs:
        is_swept = frame["patching"].notna() & frame["alpha"].notna()
        swept = frame[is_swept | frame["candidate"].notna() if merges else is_swept]
        if swept.empty:
            hint = "run `wisepatch interpolate` or `wisepatch patch` first"
            raise ResultsError("no run in these results swept alpha", hint)
        runs = [*(run for run in runs if run != "newest"), swept["run"].iloc[-1]]
    known, named = frame["run"].unique(), frame.get("run_name", frame["run"])
    if missing := [run for run in runs if run not in {*known, *named}]:
        raise ResultsError(
            f"there is no run {missing[0]!r}", f"runs there are: {', '.join(map(str, known[-MAX_LISTED:]))}"
        )
    return frame[frame["run"].isin(runs) | named.isin(runs)]
