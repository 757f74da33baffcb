"""Greedy soup: add one model after the other to an average of weights, as long as validation data gets better.

Wortsman et al. 2022, Model soups (arXiv 2203.05482, recipe 1). As in its published code, models are tried in the order of their own
score on held-out data, and one stays in the soup where the score rises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from wisepatch.analysis.sweep_frame import points
from wisepatch.config import EvalConfig, listed
from wisepatch.errors import DataError
from wisepatch.evaluation.measurement import metrics_for
from wisepatch.files import expanded
from wisepatch.plugins import find_merge_method
from wisepatch.process_group import on_main
from wisepatch.progress import Progress
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.results import append
from wisepatch.tasks import Task
from wisepatch.workflows.merge_candidates import END, MERGED, Candidate, Candidates
from wisepatch.workflows.merge_parents import merge_parents, tasks_of
from wisepatch.workflows.merging import Merged, MergeJob, merge_plan, names_of
from wisepatch.workflows.run import Run, new_run
from wisepatch.workflows.sweep_plan import TEST, VAL

GREEDY_SOUP = "greedy-soup"


def greedy_soup(
    store: Store,
    data: Path | str,
    checkpoints: Sequence[Checkpoint | str],
    *,
    tasks: Sequence[Task | str] | Task | str | None = None,
    metrics: Sequence[str] | str = (),
    materialize: bool = False,
    limit: int | None = None,
    run: str | None = None,
    run_name: str = "",
    settings: EvalConfig | None = None,
    progress: Progress | None = None,
) -> Merged:
    """Make a greedy soup of checkpoints by the mean score on the ``val`` splits of their tasks and of ``tasks``.

    The models themselves and the soup see the ``test`` splits. The soup is a recipe of the method ``linear`` with equal weights, or
    with ``materialize`` its weights.
    Raises :class:`DataError` without any validation data.
    """
    data = expanded(data)
    method = find_merge_method("linear")
    found = [store.find(each) if isinstance(each, str) else each for each in listed(checkpoints)]
    parents = replace(merge_parents(store, replace(method, name=GREEDY_SOUP), found), start=None)
    patching, others = tasks_of(parents.ends, tasks, limit)
    held_out = [task for task in (*patching.each, *others) if VAL in task.dataset.available_splits and not task.split]
    if not held_out:
        names = ", ".join(task.name for task in (*patching.each, *others))
        raise DataError(
            f"a greedy soup is chosen on validation data, and none of {names} has any",
            "measure a task that has some with --eval, or average all with --method linear",
        )
    plan = merge_plan(method, parents, [{}], patching, others, None, TEST, listed(metrics))
    plan = replace(plan, select_on=VAL)
    plan.check(data, [(task, [VAL]) for task in held_out], store=store)
    candidates = Candidates(store, method, parents, run_name, materialize, made_by=GREEDY_SOUP)
    job = MergeJob(candidates, Run(store, data, run or new_run("merge"), run_name, settings, progress))
    soup, tried = stir(job, held_out, plan.metrics)
    rows = on_main(partial(append, store.results, tried))
    params = {"weights": [float(end in soup) for end in parents.ends]}
    merged = on_main(partial(candidates.save, MERGED, params, {"select": GREEDY_SOUP, "select_on": VAL}))
    chosen = Candidate(1, MERGED, f"soup of {len(soup)} of {len(parents.ends)}", merged, params)
    every = [*(Candidate(None, END, end.name, end) for end in parents.ends), chosen]
    measured, frame = job.measure_on(plan, TEST, every)
    tested = [row | {"method": GREEDY_SOUP} if row["candidate"] else row for row in measured]
    rows += on_main(partial(append, store.results, tested))
    note = f"in the soup: {', '.join(end.name for end in soup)}"
    return Merged(
        job.run.id, GREEDY_SOUP, *names_of(plan), tuple(every), rows, {TEST: points(frame)}, selected_on=VAL, choice=chosen,
        chosen=merged, note=note,
    )  # fmt: skip


def stir(job: MergeJob, tasks: Sequence[Task], metrics: Sequence[str]) -> tuple[list[Checkpoint], list[dict[str, Any]]]:
    """Return what is in the soup, in the order in which it was added, and the rows that were measured on the way."""
    rows: list[dict[str, Any]] = []
    candidates, ends = job.candidates, job.candidates.parents.ends
    higher = {task.name: metrics_for(task, metrics)[0] for task in tasks}

    def scores(checkpoints: Sequence[Checkpoint]) -> list[float]:
        """Return the mean over the tasks of each one's first metric, better when higher."""
        measured = job.run.measure(
            checkpoints, tasks, VAL, metrics, notes=False,
            extra_fields=lambda *_: {"alpha": None, "method": GREEDY_SOUP, "role": None},
        )  # fmt: skip
        rows.extend(measured)
        return [
            sum(
                (1 if higher[row["task"]].higher_is_better else -1) * row["value"]
                for row in measured
                if row["checkpoint"] == each.id and row["metric"] == higher[row["task"]].name
            )
            / len(tasks)
            for each in checkpoints
        ]

    order = sorted(zip(scores(ends), ends, strict=True), key=lambda item: -item[0])
    (best, first), *others = order
    soup = [first]
    for _, end in others:
        shares = [float(each in (*soup, end)) for each in ends]
        tried = on_main(partial(candidates.save, "interpolated", {"weights": shares}))
        (score,) = scores([tried])
        if score > best:
            best, soup = score, [*soup, end]
        if job.run.progress:
            verdict = "stays" if end in soup else "is left out"
            job.run.progress.note(f"{end.name} {verdict}: {score:.4f} on validation data with it, best {best:.4f}")
    return soup, rows
