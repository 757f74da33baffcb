"""Measure jobs, each in a process of its own, alternating, and show medians as a table or as JSON.

A job is a function ``job(clock, **settings)`` at the top of a module; what it does within ``with clock:`` is measured, what
it returns comes back. Processes are ``warm`` (the libraries are imported already), ``fresh`` (a new interpreter: for peak
memory, and for jobs that must not import torch), or ``here`` (this one: for tests).
"""

from __future__ import annotations

import gc
import json
import logging
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from multiprocessing.connection import Connection

    Job = Callable[..., Any]

PRELOADED = [
    "torch",
    "torchvision",
    "open_clip",
    "timm",
    "accelerate",
    "pandas",
    "pyarrow.parquet",
    "wisepatch.workflows.patching",
]


@dataclass
class Clock:
    """Sums wall and CPU seconds of what runs within it; those of finished worker processes are counted too."""

    wall: float = 0.0
    cpu: float = 0.0

    def __enter__(self) -> Self:
        gc.collect()
        self._began = time.perf_counter(), cpu_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        wall, cpu = self._began
        self.wall += time.perf_counter() - wall
        self.cpu += cpu_seconds() - cpu


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def peak_megabytes() -> float:
    """The most memory that this process has held, its workers not counted.

    Linux's high-water mark, as ``ru_maxrss`` of a new program begins with that of the process that started it.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


@dataclass(frozen=True)
class Measured:
    """One measurement: seconds, megabytes, and what the job returned."""

    wall: float
    cpu: float
    megabytes: float
    result: Any


def measure(job: Job, where: str = "warm", **settings: Any) -> Measured:
    """Run ``job`` in a ``warm`` or ``fresh`` process, or ``here``. Raises RuntimeError with the traceback of a job that fails."""
    if where == "here":
        return _run(job, settings)
    os.sync()  # what an earlier job wrote is not this one's to wait for
    context = multiprocessing.get_context("forkserver" if where == "warm" else "spawn")
    if where == "warm":
        context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, job, settings, multiprocessing.get_start_method()))
    process.start()
    sender.close()
    try:
        found: Measured | str = receiver.recv()
    except EOFError:
        process.join()
        found = f"{job} ended with {process.exitcode} and no result (out of memory?)"
    receiver.close()
    process.join()
    process.close()
    if isinstance(found, str):
        raise RuntimeError(found)
    return found


def _child(sender: Connection, job: Job, settings: Mapping[str, Any], start_method: str) -> None:
    # Data loaders start their workers as in any program, not as this process was started, which takes seconds.
    multiprocessing.set_start_method(start_method, force=True)
    warnings.simplefilter("ignore")  # such as that of 32 workers on fewer cores
    logging.disable(logging.WARNING)  # that there are no pretrained weights
    try:
        found: Measured | str = _run(job, settings)
    except Exception:  # noqa: BLE001 -- it is raised again on the other side
        found = traceback.format_exc()
    sender.send(found)


def _run(job: Job, settings: Mapping[str, Any]) -> Measured:
    clock = Clock()
    result = job(clock, **settings)
    return Measured(clock.wall, clock.cpu, peak_megabytes(), result)


@dataclass(frozen=True)
class Row:
    """A line of the table: ``ratio`` is the reference's seconds over wisepatch's; None where there is nothing to compare."""

    workload: str
    variant: str
    reference_s: float | None = None
    wisepatch_s: float | None = None
    ratio: float | None = None
    agree: bool | None = None
    aim: float | None = None
    reference_cpu_s: float | None = None
    wisepatch_cpu_s: float | None = None
    reference_mb: float | None = None
    wisepatch_mb: float | None = None
    reference_range_s: tuple[float, float] | None = None
    wisepatch_range_s: tuple[float, float] | None = None
    note: str = ""
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What a workload is given: its name, an empty folder that goes afterwards, the size of the run."""

    workload: str
    folder: Path
    quick: bool
    repeats: int
    machine: Mapping[str, Any]

    def say(self, text: str) -> None:
        """Say on stderr what is under way."""
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {self.workload}: {text}\n")

    def do(self, job: Job, **settings: Any) -> Any:
        """Run a job that prepares something and return its result."""
        self.say(job.__name__.replace("_", " "))
        return measure(job, **settings).result

    def alternate(
        self, sides: Mapping[str, Callable[[], Measured]], repeats: int | None = None
    ) -> dict[str, list[Measured]]:
        """Measure all sides in turn, and again, each round beginning with another side."""
        found: dict[str, list[Measured]] = {name: [] for name in sides}
        names = list(sides)
        repeats = repeats or self.repeats
        for round_ in range(repeats):
            start = round_ % len(names)
            for name in names[start:] + names[:start]:
                found[name].append(sides[name]())
                self.say(f"round {round_ + 1} of {repeats}, {name}: {found[name][-1].wall:.3g} s")
        return found

    def row(
        self,
        variant: str,
        reference: Sequence[Measured] = (),
        wisepatch: Sequence[Measured] = (),
        agree: bool | None = None,
        aim: float | None = None,
        note: str = "",
        **more: Any,
    ) -> Row:
        """The medians of two sides as a row."""
        sides = {"reference": reference, "wisepatch": wisepatch}
        values: dict[str, Any] = {}
        for name, found in sides.items():
            if found:
                walls = [each.wall for each in found]
                values[f"{name}_s"] = statistics.median(walls)
                values[f"{name}_range_s"] = (min(walls), max(walls))
                values[f"{name}_cpu_s"] = statistics.median(each.cpu for each in found)
                values[f"{name}_mb"] = statistics.median(each.megabytes for each in found)
        if reference and wisepatch and values["wisepatch_s"]:
            values["ratio"] = values["reference_s"] / values["wisepatch_s"]
        return Row(self.workload, variant, agree=agree, aim=aim, note=note, more=more, **values)


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return {
        "cpu": cpu, "cores": cores, "memory_gb": round(memory), "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(), "torch": version("torch"), "wisepatch": version("wisepatch"),
    }  # fmt: skip


def report(row: Row, here: Mapping[str, Any]) -> None:
    """Write a row as one JSON object."""
    fields = asdict(row)
    more = fields.pop("more")
    sys.stdout.write(json.dumps(fields | more | {"machine": dict(here)}) + "\n")
    sys.stdout.flush()


def table(rows: Sequence[Row], here: Mapping[str, Any], *, quick: bool) -> None:
    """Show all rows."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, header_style="bold")
    for name in ("", "variant"):
        shown.add_column(name)
    for name in ("reference s", "wisepatch s", "ratio", "aim", "CPU s", "peak MB"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("agree")
    shown.add_column("note")
    for row in rows:
        agree = {True: "yes", False: "NO", None: ""}[row.agree]
        cells = [
            row.workload, row.variant, _figure(row.reference_s), _figure(row.wisepatch_s), _figure(row.ratio), _figure(row.aim),
            _pair(row.reference_cpu_s, row.wisepatch_cpu_s), _pair(row.reference_mb, row.wisepatch_mb), agree, row.note,
        ]  # fmt: skip
        shown.add_row(*cells)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(shown)
    said = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in here.items())
    console.print(f"\nMedians. CPU s and peak MB: reference / wisepatch; peaks without worker processes.\n{said}")
    if quick:
        console.print("With --quick the work is small and start-up weighs more: these ratios are not the record.")


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _pair(first: float | None, second: float | None) -> str:
    return "" if first is None and second is None else f"{_figure(first) or '-'} / {_figure(second) or '-'}"
