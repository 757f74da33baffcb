"""A sweep as rules see it: a DataFrame with one row an alpha and task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.same_images import IMAGES, shown_by
from wisepatch.config import listed
from wisepatch.errors import ResultsError
from wisepatch.plugins import registry

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

PATCHING, SUPPORTED = "patching", "supported"
COUNTS = ("broken", "fixed")
FITTED = "fitted"
EFFECTIVE = "n_effective"  # of images that belong together, such as frames of one video: as how many they count
BELOW = "_zeroshot"  # ends the columns that are about the zero-shot model, where a sweep starts at another checkpoint


@dataclass(frozen=True)
class Point:
    """One alpha of a sweep: the mean metric of what is patched, and that of the supported tasks (``None`` without any).

    ``mean_score`` is the mean of both as rules compare them: better when higher, whatever the metrics.
    """

    alpha: float
    patching: float
    supported: float | None = None
    mean_score: float | None = None


def sweep_frame(
    rows: Iterable[Mapping[str, Any]] | pd.DataFrame, patching: str | Sequence[str], supported: Sequence[str]
) -> pd.DataFrame:
    """Gather rows of results of one run and split into one row an alpha and task, in order of alpha; several tasks may be patched.

    Columns: ``alpha, task, role`` (``patching`` or ``supported``), ``metric`` (the first of the task), its ``value``, ``score``
    (the value, with its sign changed where lower is better), ``n, ci_low, ci_high``, and the images that are right at alpha 0 alone
    (``broken``) or at this alpha alone (``fixed``), NaN where nobody counted. A row without alpha is the zero-shot model below a
    sweep that starts at another checkpoint: then ``score_zeroshot``, ``broken_zeroshot`` and ``fixed_zeroshot`` compare with it.
    ``fitted`` is there where some mixes were made by looking at the answers on this very split, and says which; ``images`` where
    tasks show the images of another one, and names that; ``n_effective`` where images belong together.

    Raises :class:`ResultsError` where a task was not measured, or not at some alpha.
    """
    import pandas as pd

    given: Any = rows if isinstance(rows, pd.DataFrame) else list(rows)
    table = pd.DataFrame(given)
    known = registry().all("register_metrics")
    parts, patched = [], listed(patching)
    for task in (*patched, *supported):
        part = table[table["task"] == task] if len(table) else table
        if part.empty:
            raise ResultsError(f"{task!r} was not measured", f"tasks there are: {_listed(table)}")
        metric = part["metric"].iloc[0]
        part = part[part["metric"] == metric].drop_duplicates("alpha", keep="last")
        sign = -1 if metric in known and not known[metric].higher_is_better else 1
        part = part.assign(role=PATCHING if task in patched else SUPPORTED, score=sign * part["value"].astype(float))
        below = part[part["alpha"].isna()]
        parts.append(part.assign(score_zeroshot=below["score"].iloc[0]) if len(below) else part)
    frame = pd.concat(parts)
    columns = ["alpha", "task", "role", "metric", "value", "score", "n", "ci_low", "ci_high", *COUNTS]
    if "score_zeroshot" in frame and frame["score_zeroshot"].notna().all():
        columns += [f"{name}{BELOW}" for name in ("score", *COUNTS)]
    numbers = columns[4:]
    if "fitted_on" in frame and "split" in frame and (fitted := frame["fitted_on"] == frame["split"]).any():
        frame, columns = frame.assign(**{FITTED: fitted}), [*columns, FITTED]
    if EFFECTIVE in frame and frame[EFFECTIVE].notna().any():
        columns, numbers = [*columns, EFFECTIVE], [*numbers, EFFECTIVE]
    if IMAGES in frame and frame[IMAGES].notna().any():
        columns = [*columns, IMAGES]
    frame = frame.reindex(columns=columns)[frame["alpha"].notna()]
    typed: pd.DataFrame = frame.astype(dict.fromkeys(("alpha", *numbers), float))
    _check_complete(typed, (*patched, *supported))
    return typed.sort_values("alpha", kind="stable", ignore_index=True)


def _listed(table: pd.DataFrame) -> str:
    return ", ".join(sorted(map(str, table["task"].unique()))) if len(table) else "none"


def _check_complete(frame: pd.DataFrame, tasks: Sequence[str]) -> None:
    measured = frame.groupby("alpha")["task"].agg(set)
    for alpha, there in measured.items():
        for task in tasks:
            if task not in there:
                raise ResultsError(
                    f"{task!r} was not measured at alpha {alpha:g}", "evaluate every task at every alpha"
                )


def by_task(frame: pd.DataFrame, column: str, role: str = "") -> pd.DataFrame:
    """Spread a column over tasks: a row an alpha, a column a task of ``role`` (any, without one)."""
    rows = frame[frame["role"] == role] if role else frame
    spread: pd.DataFrame = rows.set_index(["alpha", "task"])[column].unstack("task").sort_index()
    return spread


def shown_tasks(frame: pd.DataFrame, tasks: Iterable[str]) -> list[str]:
    """Return for each task the name of the one whose images it shows."""
    shown = {row["task"]: shown_by(row) for row in frame.drop_duplicates("task").to_dict("records")}
    return [shown[task] for task in tasks]


def axes(frame: pd.DataFrame) -> pd.DataFrame:
    """Return by alpha the mean score on the patching tasks, that on the supported tasks (NaN without any), and the mean of both.

    Without supported tasks ``mean`` is the score on the patching tasks.
    """
    import pandas as pd

    patching = by_task(frame, "score", PATCHING).mean(axis=1, skipna=False)
    judged = by_task(frame, "score", SUPPORTED)
    supported = judged.mean(axis=1, skipna=False).reindex(patching.index)
    mean = (patching + supported) / 2 if len(judged.columns) else patching
    return pd.DataFrame({"patching": patching, "supported": supported, "mean": mean})


def points(frame: pd.DataFrame) -> list[Point]:
    """Return the points of a sweep for tables: values as measured, in order of alpha."""
    values = by_task(frame, "value", PATCHING).mean(axis=1, skipna=False)
    judged = by_task(frame, "value", SUPPORTED)
    supported = judged.mean(axis=1, skipna=False).tolist() if len(judged.columns) else [None] * len(values)
    means = axes(frame)["mean"].tolist()
    return [Point(*each) for each in zip(values.index.tolist(), values.tolist(), supported, means, strict=True)]


def mean_with_interval(frame: pd.DataFrame, alpha: float, *roles: str) -> dict[str, float]:
    """Return the mean value over the tasks of a role at an alpha, as ``value, ci_low, ci_high``; NaN where nothing is known.

    Of several roles it is the mean of their means.
    """
    from wisepatch.analysis.intervals import mean_of_rows

    at_alpha = frame[frame["alpha"] == alpha]
    return mean_of_rows(*(at_alpha[at_alpha["role"] == role].to_dict("records") for role in roles))


def paired_counts(right: NDArray[Any], reference: NDArray[Any]) -> dict[str, int]:
    """Count the images that ``reference`` ``(n,)`` alone has right (``broken``), and those that ``right`` alone has (``fixed``)."""
    return {"broken": int((reference & ~right).sum()), "fixed": int((right & ~reference).sum())}


def with_mean_of_patched(results: pd.DataFrame) -> pd.DataFrame:
    """Return results in which several patching tasks of a run are one, called as the run calls them, with the mean accuracy.

    The first metric of each task counts, its interval is that of a mean. Other runs stay as they are.
    """
    import pandas as pd

    from wisepatch.analysis.intervals import mean_of_rows

    if "patching" not in results or "role" not in results:
        return results
    parts = []
    for _, of_run in results.groupby("run", sort=False, dropna=False):
        rows = last_sweep(of_run)
        tasks = patched_tasks(rows)
        if len(tasks) < 2:
            parts.append(rows)
            continue
        patched = rows[rows["task"].isin(tasks) & (rows["role"] == PATCHING)]
        first = patched.groupby("task")["metric"].transform("first")
        means = []
        for _, each in patched[patched["metric"] == first].groupby(["split", "checkpoint"], sort=False, dropna=False):
            of_tasks = mean_of_rows(each.to_dict("records"))
            row = each.iloc[0].to_dict() | {
                "task": each["patching"].iloc[0],
                "value": each["value"].mean(),
                "n": each["n"].sum(),
            }
            if each["ci_low"].notna().all():
                row |= {name: of_tasks[name] for name in ("ci_low", "ci_high")}
            means.append(row)
        parts.append(pd.concat([rows[~rows["task"].isin(tasks)], pd.DataFrame(means)[rows.columns]]))
    return pd.concat(parts, ignore_index=True) if parts else results


def is_numbered(rows: pd.DataFrame) -> bool:
    """Tell whether the mixes of a run are numbered: of several ends, with a coefficient each in place of alpha."""
    return "candidate" in rows and bool(rows["candidate"].notna().any())


def is_merge(rows: pd.DataFrame) -> bool:
    """Tell whether a run merged checkpoints: its candidates are numbered, and lie on no line from a start to one patching task."""
    return is_numbered(rows) and bool(rows["patching"].isna().all())


def numbered(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the numbers of their candidates in place of alpha, where they have such; of a merge without its ends."""
    if is_merge(rows):
        rows = rows[rows["candidate"].notna()]
    return rows.assign(alpha=rows["candidate"]) if is_numbered(rows) else rows


def last_sweep(rows: pd.DataFrame) -> pd.DataFrame:
    """Leave out all sweeps of a run but the last, of all its tasks, where these were patched one after the other."""
    named = list(rows["patching"].dropna().unique())
    of_several = [name for name in named if name not in set(rows["task"])]
    if len(named) < 2 or not of_several:
        return rows
    last: pd.DataFrame = rows[rows["patching"].isna() | (rows["patching"] == of_several[-1])]
    return last


def patched_tasks(rows: pd.DataFrame) -> list[str]:
    """Return the tasks that rows of one run name as patched: by their role where there are several, else the one that all name."""
    if is_merge(rows):
        return list(rows.loc[rows["role"] == PATCHING, "task"].unique())
    rows = last_sweep(rows)
    named: list[str] = rows["patching"].dropna().unique().tolist()
    if named and "role" in rows and named[0] not in set(rows["task"]):
        named = rows.loc[(rows["patching"] == named[0]) & (rows["role"] == PATCHING), "task"].unique().tolist()
    else:
        named = named[:1]
    return named


def frames_of_runs(
    results: pd.DataFrame,
    *,
    patching: str | None = None,
    supported: Sequence[str] = (),
    split: str | None = None,
    metric: str | None = None,
) -> dict[str, tuple[str, pd.DataFrame]]:
    """Return by run its split and :func:`sweep_frame`, from tidy results; runs that swept no alpha are left out.

    The split is the one that alpha is chosen on, ``val`` where the run has it, else ``test``; the patching tasks those that
    the rows name, and the supported tasks all others, unless they are named. ``metric`` goes before the first of each task.

    Raises :class:`ResultsError` where nothing is left, or a named task was not measured.
    """
    frames = {}
    for run, of_run in results.groupby("run", sort=False):
        of_last = last_sweep(of_run)
        swept = of_last["alpha"].notna() | of_last["patching"].notna()
        rows = numbered(of_last if is_merge(of_last) else of_last[swept])
        on = split or ("val" if (rows["split"] == "val").any() else "test")
        rows = rows[rows["split"].fillna("test") == on]
        task: Any = listed(patching) if patching else patched_tasks(rows)
        if rows["alpha"].notna().sum() == 0 or (not task and results["run"].nunique() > 1):
            continue
        if not task:
            raise ResultsError(f"run {run!r} does not say which task was patched", "name it with --patching TASK")
        if metric:
            rows = rows.sort_values("metric", key=lambda names: names != metric, kind="stable")
            if not (rows["metric"] == metric).any():
                raise ResultsError(
                    f"no row measures {metric!r}", f"metrics there are: {', '.join(rows['metric'].unique())}"
                )
        others = list(supported) or [name for name in rows["task"].unique() if name not in task]
        frames[str(run)] = on, sweep_frame(rows, task, others)
    if not frames:
        where = f" on the {split!r} split" if split else ""
        raise ResultsError(
            f"the results hold no sweep over alpha{where}", "run `wisepatch interpolate` or `wisepatch patch`"
        )
    return frames
