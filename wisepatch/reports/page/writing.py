"""Write the report: one page of HTML with its style, its charts and the library that draws them, which loads nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.sweep_frame import patched_tasks
from wisepatch.config import listed
from wisepatch.counting import count
from wisepatch.datasets.notes import tell_once
from wisepatch.errors import ResultsError, UsageError, WisepatchError
from wisepatch.files import check_writable, expanded, refused, replacing
from wisepatch.reports.numbers import percent
from wisepatch.reports.page.content import RunContent, run_content
from wisepatch.reports.page.curves import frontier_chart, frontier_points, run_name
from wisepatch.reports.page.tables import Table, mix_words, split_words
from wisepatch.reports.page.thumbnails import Budget
from wisepatch.store.checkpoints import Store
from wisepatch.store.results import read_runs
from wisepatch.terminal import harmless
from wisepatch.workflows.stored_sweep import stored_sweep

if TYPE_CHECKING:
    import pandas as pd

PARTS = (
    ("done", "What was done"), ("results", "Results"), ("chosen", "Why this alpha"), ("certified", "What is certified"),
    ("charts", "Over alpha"), ("robustness", "Robustness"), ("classes", "Worst classes"), ("images", "Images"),
    ("training", "Training"), ("lineage", "Lineage"), ("commands", "Commands"),
)  # fmt: skip
SUFFIXES = (".html", ".htm")
MAX_RUNS = 12  # of a page
SHORT_NAME = 28  # letters that a table does not break
NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]\d+)?( \([-+]?\d+\.\d+ to [-+]?\d+\.\d+\))?|-")


def report_problems(path: Path) -> list[WisepatchError]:
    """Return why a report cannot be written there, to be said with all else that is wrong; nothing is made."""
    if path.suffix.lower() not in SUFFIXES:
        reason = f"a report cannot be written as {path.suffix or 'a file without suffix'!r} ({path})"
        return [UsageError(reason, f"its name ends in {' or '.join(SUFFIXES)}")]
    try:
        with _writing(path):
            check_writable(path)
    except UsageError as error:
        return [error]
    return []


def _writing(path: Path) -> Any:
    return refused(f"the report {path}", UsageError, "name another with --output")


def write_report(
    store: Store | Path | str,
    output: Path | str,
    *,
    runs: Sequence[str] | str = "newest",
    data: Path | str = "~/data",
    title: str | None = None,
) -> list[Table]:
    """Write one self-contained page about runs of a store that swept alpha, below 5 MB; return the tables of results.

    ``runs`` are names or ids, ``newest`` or ``all``; ``data`` is where the images are that were fixed and broken. What the store or
    the data folder lacks is said on the page. Nothing is computed anew, and the page loads nothing from a network.

    Raises :class:`UsageError` where the page cannot be written, before anything is read, and :class:`ResultsError` for a run that
    is not there, or that swept no alpha. The page is written whole or not at all.
    """
    output = expanded(output)
    for problem in report_problems(output):
        raise problem
    store = store if isinstance(store, Store) else Store(store)
    frame, left_out = read_runs([store.results], listed(runs))
    for reason in left_out:
        tell_once(reason)
    by_run = _swept(frame, named="all" not in listed(runs))
    budget = Budget()
    contents = [
        run_content(store, rows, expanded(data), number, budget) for number, rows in enumerate(by_run.values(), start=1)
    ]
    together = _together(store, by_run) if len(by_run) > 1 else None
    page = _render(contents, together, title or _title(contents, frame))
    with _writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as file:
            file.write(page.encode(errors="backslashreplace"))
    return [
        *([together["table"]] if together else []),
        *(table for run in contents for table in (*run.results, *run.robustness)),
    ]


def _swept(frame: pd.DataFrame, *, named: bool) -> dict[str, pd.DataFrame]:
    """Return the rows of each run that swept alpha; one that was named has to be among them."""
    by_run: dict[str, pd.DataFrame] = {str(run): rows for run, rows in frame.groupby("run", sort=False)}
    swept = {run: rows for run, rows in by_run.items() if (rows["alpha"].notna() & rows["patching"].notna()).any()}
    without = [run for run in by_run if run not in swept]
    if without and (named or not swept):
        raise ResultsError(
            f"the run {without[0]!r} swept no alpha", "name a run of `wisepatch interpolate` or `wisepatch patch`"
        )
    if len(swept) > MAX_RUNS:
        raise ResultsError(f"a page has at most {MAX_RUNS} runs, and these are {len(swept)}", "name some with --run")
    return swept


def _title(contents: Sequence[RunContent], frame: pd.DataFrame) -> str:
    tasks = list(
        dict.fromkeys(task for _, of_run in frame.groupby("run", sort=False) for task in patched_tasks(of_run))
    )
    runs = f": {count(len(contents), 'run')}" if len(contents) > 1 else ""
    return f"Patching {', '.join(tasks)}{runs}"


def _together(store: Store, by_run: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return a table of several runs, and one frontier of those that patch the same task with the same supported ones."""
    sweeps = {run: stored_sweep(store, rows) for run, rows in by_run.items()}
    body, charts, notes = [], [], list[str]()
    for sweep in sweeps.values():
        split = "test" if "test" in sweep.points else next(iter(sweep.points))
        alpha = sweep.choice.alpha if sweep.choice else None
        point = next((each for each in sweep.points[split] if each.alpha == alpha), None)
        body.append([
            run_name(sweep), ", ".join(sweep.patching_tasks), ", ".join(sweep.supported) or "-",
            "-" if alpha is None else mix_words(sweep, alpha), str(sweep.rule or "-"),
            split, percent(point.patching if point else None), percent(point.supported if point else None),
        ])  # fmt: skip
    columns = ("run", "patched tasks", "supported tasks", "chosen", "rule", "split", "patched", "supported")
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for run, sweep in sweeps.items():
        groups.setdefault((sweep.patching, tuple(sorted(sweep.supported))), []).append(run)
    for number, group in enumerate((group for group in groups.values() if len(group) > 1), start=1):
        on = [sweeps[run] for run in group if "test" in sweeps[run].points]
        points = [point for sweep in on for point in frontier_points(sweep, "test")]
        if len(points) < 2:
            continue
        charts.append(frontier_chart(points, sweeps[group[0]], split_words("test"), f"together-{number}"))
    if len(groups) > 1:
        notes.append("Runs that patch other tasks, or have other supported tasks, are not drawn on one pair of axes.")
    return {"table": Table("The runs of this page, per cent", columns, body), "charts": charts, "notes": notes}


def _render(contents: Sequence[RunContent], together: Mapping[str, Any] | None, title: str) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    here = files("wisepatch.reports.page")
    script = Markup(f"{_library()}\n{(here / 'report.js').read_text(encoding='utf-8')}")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.filters["shown"] = _shown
    environment.tests["number_like"] = lambda cell: bool(NUMBER.fullmatch(str(cell)))
    environment.tests["one_word"] = lambda cell: " " not in str(cell) and len(str(cell)) <= SHORT_NAME
    environment.tests["short"] = lambda cell: len(str(cell)) <= SHORT_NAME
    template = environment.from_string((here / "report.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        title=title, runs=contents, together=together, parts=PARTS, version=version("wisepatch"),
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", script=script, policy=_policy(script),
        style=Markup((here / "report.css").read_text(encoding="utf-8")),
    )  # fmt: skip


def _shown(value: Any) -> Any:
    """Write out what would reorder or break a line, also within a chart: names keep no power over the page."""
    if isinstance(value, dict):
        return {name: _shown(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_shown(each) for each in value]
    return harmless(value) if type(value) is str else value


def _library() -> str:
    """Return the JavaScript of Vega, Vega-Lite and Vega-Embed, which works offline."""
    from vl_convert import javascript_bundle

    bundle: str = javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return re.sub(r"</(?=script)", r"<\\/", bundle, flags=re.IGNORECASE).replace("<!--", r"<\!--")


def _policy(script: str) -> str:
    """Return the policy of the page: it runs this one script and loads nothing (Vega compiles its expressions, by eval)."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}' 'unsafe-eval'"
