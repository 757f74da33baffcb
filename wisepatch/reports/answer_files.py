"""Keep what checkpoints answer to images: as a table (.csv, .parquet), or as a sheet of the surest images of each class."""

from __future__ import annotations

import csv
import heapq
import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from wisepatch.counting import count
from wisepatch.datasets.any_images import AnyImages
from wisepatch.datasets.contact_sheet import contact_sheet
from wisepatch.errors import UsageError
from wisepatch.files import check_writable, drawing, refused, replacing

if TYPE_CHECKING:
    from wisepatch.evaluation.answers import Answer
    from wisepatch.store.checkpoints import Checkpoint

TABLES, SHEETS = (".csv", ".parquet"), (".png", ".jpg")
ROWS_AT_ONCE = 10_000
MAX_GROUPS, MAX_IMAGES = 60, 1_000  # on a sheet: more would be a picture that no program opens


def check_output(path: Path) -> None:
    """Raise :class:`UsageError` where answers cannot be written to ``path``; nothing is made."""
    if path.suffix.lower() not in TABLES + SHEETS:
        reason = f"answers cannot be written as {path.suffix or 'a file without suffix'!r} ({path})"
        raise UsageError(reason, f"a table ends in {' or '.join(TABLES)}, a sheet of images in {' or '.join(SHEETS)}")
    with refused(str(path), UsageError, "name another with --output"):
        check_writable(path)


@dataclass
class Table:
    """Write a row for each image and checkpoint; classes and probabilities are in columns, the likeliest first."""

    file: BinaryIO
    path: Path
    top: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    writer: Any = None

    @property
    def columns(self) -> list[str]:
        """Return the names of the columns."""
        pairs = [(f"class_{n}", f"probability_{n}") for n in range(1, self.top + 1)]
        return ["image", "checkpoint", "id", *(name for pair in pairs for name in pair), "problem"]

    def add(self, answer: Answer) -> None:
        """Add the row of an answer; its image may be one that cannot be read."""
        row: dict[str, Any] = {"image": answer.image, "checkpoint": answer.checkpoint.name, "id": answer.checkpoint.id}
        for number, (name, probability) in enumerate(zip(answer.classes, answer.probabilities, strict=True), start=1):
            row |= {f"class_{number}": name, f"probability_{number}": probability}
        self.rows.append(row | {"problem": answer.problem or None})
        if len(self.rows) == ROWS_AT_ONCE:
            self.write()

    def write(self) -> None:
        """Write the rows that wait."""
        with _written(self.path):
            if self._is_csv:
                self._write_csv()
            else:
                self._write_parquet()
        self.rows = []

    @property
    def _is_csv(self) -> bool:
        return self.path.suffix.lower() == ".csv"

    def _write_csv(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        if self.writer is None:
            writer.writeheader()
        self.writer = writer
        writer.writerows(self.rows)
        self.file.write(text.getvalue().encode(errors="surrogateescape"))

    def _write_parquet(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {name: pa.float32() if name.startswith("probability") else pa.string() for name in self.columns}
        printable = [
            {k: v.encode(errors="replace").decode() if isinstance(v, str) else v for k, v in row.items()}
            for row in self.rows
        ]
        schema = pa.schema(list(kinds.items()))
        self.writer = self.writer or pq.ParquetWriter(self.file, schema)
        self.writer.write_table(pa.Table.from_pylist(printable, schema=schema))

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        self.write()
        if not self._is_csv:
            self.writer.close()


@contextmanager
def table(path: Path, top: int) -> Iterator[Table]:
    """Yield a table that is written to ``path``, whole or not at all. Raises :class:`UsageError` where that cannot be written."""
    with ExitStack() as stack:
        with _written(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(replacing(path))
        rows = Table(file, path, top)
        yield rows
        with _written(path):
            rows.close()
            stack.close()


def _written(path: Path) -> AbstractContextManager[None]:
    return refused(str(path), UsageError, "free space there, or name another with --output")


@dataclass
class Sheet:
    """Collect the images that each checkpoint takes for each class most surely, at most ``per_class``."""

    per_class: int
    surest: dict[tuple[str, str], list[tuple[float, int]]] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)

    def add(self, answer: Answer) -> None:
        """Look at an answer."""
        if answer.problem:
            return
        key = (answer.checkpoint.id, answer.classes[0])
        self.checkpoints[answer.checkpoint.id] = answer.checkpoint
        self.counts[key] = self.counts.get(key, 0) + 1
        heap = self.surest.setdefault(key, [])
        heapq.heappush(heap, (answer.probabilities[0], -answer.index))
        if len(heap) > self.per_class:
            heapq.heappop(heap)

    def save(self, images: AnyImages, path: Path) -> None:
        """Draw the classes that are answered most often, each with its surest images first; one that is gone is left out."""
        order = list(self.checkpoints)
        keys = sorted(self.counts, key=lambda key: (order.index(key[0]), -self.counts[key]))
        names, groups, drawn = images.names(), [], 0
        for identity, name in keys[:MAX_GROUPS]:
            surest = sorted(self.surest[identity, name], reverse=True)[: MAX_IMAGES - drawn]
            drawn += len(surest)
            cells = []
            for probability, index in surest:
                with suppress(ValueError):
                    cells.append((images.open(-index), (Path(names[-index]).name, f"{100 * probability:.1f} %")))
            of = f"{self.checkpoints[identity].name}: " if len(order) > 1 else ""
            groups.append((f"{of}{name}, {count(self.counts[identity, name], 'image')}", cells))
        if len(keys) > MAX_GROUPS:
            groups.append((f"and {count(len(keys) - MAX_GROUPS, 'class', 'classes')} more", []))
        with drawing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            contact_sheet(groups).save(path)
