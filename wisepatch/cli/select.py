"""``wisepatch select``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wisepatch.cli import completion
from wisepatch.cli import options as o
from wisepatch.reports.numbers import with_interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from wisepatch.analysis.selection import Rule


@o.with_settings
def command(
    common: o.Common,
    results: Annotated[
        list[Path] | None,
        typer.Option("--results", help="Files of results, also the papers' wide records. (default: the store's)"),
    ] = None,
    rule: Annotated[
        list[str], typer.Option("--rule", "--select", help=o.RULE_HELP, autocompletion=completion.rules)
    ] = ["best-mean"],  # noqa: B006 -- Typer copies defaults
    run: Annotated[
        list[str],
        typer.Option(
            "--run",
            help="Runs, by id or name. (default: the newest sweep or merge of the store, all of a file)",
            autocompletion=completion.runs,
        ),
    ] = [],  # noqa: B006
    patching: Annotated[
        str | None, typer.Option("--patching", help="The patching task, where the results do not say it.")
    ] = None,
    supported: Annotated[
        list[str],
        typer.Option("--supported", help="The tasks that must not get worse. (default: all but the patching task)"),
    ] = [],  # noqa: B006
    split: Annotated[
        str | None, typer.Option("--split", help="The data that the choice sees. (default: val where there is any)")
    ] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="A metric, for the first of each task.")] = None,
    form: o.FormatOption = "table",
) -> None:
    """Choose alpha from results alone, by any rule; nothing is computed and nothing is stored.

    best-mean takes the best mean of patching and supported accuracy (PAINT), max-drop=0.01 the best patching accuracy that
    costs the supported tasks at most one point on average (each: every one of them), max-drop=0.01@95 the best for which that is
    certified at 95 per cent confidence, knee the bend of the curve, alpha=0.5 what WiSE-FT advises,
    weights=MNIST:2,CIFAR10:1 the best weighted mean.

    Example: `wisepatch select --results paper.jsonl --patching MNIST --supported CIFAR10 --rule best-mean --rule max-drop=0.01`,
    `wisepatch select --rule max-drop=0.01@95,each`
    """  # fmt: skip
    from wisepatch.analysis.selection import parse_rule
    from wisepatch.analysis.sweep_frame import PATCHING, SUPPORTED, frames_of_runs, mean_with_interval
    from wisepatch.store.results import read_runs

    common = common.printing(form)
    output, rules = common.output, [parse_rule(text) for text in rule]
    runs = o.run_names(run) or ([] if results else ["newest"])
    frame, problems = read_runs(results or [common.open_store().results], runs, merges=True)
    for problem in problems:
        output.say(f"warning: {problem}")
    frames = frames_of_runs(frame, patching=patching, supported=o.split_list(supported), split=split, metric=metric)
    body, notes = [], [f"note: {words}" for each in rules if (words := each.of_several(len(frames)))]
    for name, (on, of_run) in frames.items():
        for each in rules:
            alpha, record, words = _chosen(of_run, frame[frame["run"] == name], each)
            means = {role: mean_with_interval(of_run, alpha, role) for role in (PATCHING, SUPPORTED)}
            if record["supported"] is not None and of_run["metric"].nunique() == 1:
                means["mean"] = mean_with_interval(of_run, alpha, PATCHING, SUPPORTED)
                record["mean"] = means["mean"]["value"]
            for of, mean in means.items():
                known = mean["ci_low"] == mean["ci_low"]
                record |= {f"{of}_low": mean["ci_low"], f"{of}_high": mean["ci_high"]} if known else {}
            output.records([{"run": name, "rule": str(each), "selected_on": on, **record}], "choice")
            body.append((name, str(each), on, words, *(with_interval(means[role]) for role in (PATCHING, SUPPORTED))))
            notes += [record["note"]] if record["note"] else []
    first = next(iter(frames.values()))[1]
    patched = first.loc[first["role"] == "patching", "task"].unique()
    task = patched[0] if len(frames) == 1 and len(patched) == 1 else "patching"
    output.result(f"per cent{_images(frames)}")
    output.table(("run", "rule", "chosen on", "alpha", str(task), "supported"), body)
    for note in notes:
        output.result(note)


def _images(frames: Mapping[str, tuple[str, pd.DataFrame]]) -> str:
    """Say what intervals are, and on how many images the first of the runs was measured, where that is known."""
    from wisepatch.cli.results import INTERVALS, image_counts

    (_, first), *others = frames.values()
    known = first[first["n"].notna()]
    rows = {str(task): {"n": int(n)} for task, n in zip(known["task"], known["n"], strict=True)}
    counts = "" if others else image_counts(rows)
    return counts + (INTERVALS if any(each["ci_low"].notna().any() for _, each in frames.values()) else "")


def _chosen(of_run: pd.DataFrame, rows: pd.DataFrame, rule: Rule) -> tuple[float, dict[str, Any], str]:
    """Choose an alpha of a run, or a candidate, by a rule; return it, the choice as a record, and in words."""
    from wisepatch.analysis.selection import choose, choose_candidate
    from wisepatch.analysis.sweep_frame import is_numbered, points
    from wisepatch.weights.parameters import label

    numbered = is_numbered(rows)
    choice = (choose_candidate if numbered else choose)(of_run, rule)
    point = next(point for point in points(of_run) if point.alpha == choice.alpha)
    measured = {"patching": point.patching, "supported": point.supported, "note": choice.note, **choice.facts}
    if not numbered:
        return choice.alpha, {"alpha": choice.alpha, **measured}, f"{choice.alpha:g}"
    params = _params(rows, choice.alpha)
    words = f"candidate {choice.alpha:g} ({label(params) or 'the start'})"
    return choice.alpha, {"candidate": choice.alpha, "params": params, **measured}, words


def _params(rows: pd.DataFrame, number: float) -> dict[str, Any]:
    """Return the parameters of a candidate of a run, as its rows have them; of the start none."""
    from wisepatch.weights.parameters import without_files

    row = rows[rows["candidate"] == number].iloc[0]
    params = row["params"] if isinstance(row["params"], dict) else {}
    if number == 0:
        return {}
    own = {} if "alphas" in params or row["alpha"] != row["alpha"] else {"alpha": row["alpha"]}
    return own | without_files(params)
