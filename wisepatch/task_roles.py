"""Give the tasks of a run their roles: patched, several of them as one, or supported, which must not get worse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wisepatch.config import listed
from wisepatch.datasets.several import joint_dataset
from wisepatch.datasets.splits import CUT
from wisepatch.errors import UsageError
from wisepatch.tasks import Task, check_names_of_one, find_task, find_tasks
from wisepatch.train_config import Balance, TrainConfig

MEASURE_AFTERWARDS = "measure it afterwards: wisepatch eval zeroshot patched --task {}"  # a split of a dataset's own


@dataclass(frozen=True)
class RunTasks:
    """The tasks of a run, looked up once: the one to patch, and those that must not get worse."""

    patching: Task
    supported: tuple[Task, ...] = ()

    @classmethod
    def find(
        cls,
        task: str | Sequence[str],
        supported: Iterable[str] = (),
        classnames: Sequence[str] | None = None,
        templates: Sequence[str] | None = None,
        limit: int | None = None,
        balance: Balance = "examples",
    ) -> RunTasks:
        """Look the words up; class names and templates are the patching task's. Raises the errors of :func:`find_task`.

        ``NAME@train`` is ``NAME``: what is trained on it is measured on the other splits. Several tasks to patch are one with
        parts, and none of them may be supported too: :class:`UsageError`.
        """
        words, supported = listed(task), list(supported)
        check_names_of_one(words, classnames)
        found = [_trained(find_task(word, classnames, templates, limit=limit)) for word in words]
        if len(found) == 1:
            return cls(found[0], tuple(other_tasks(found[0], supported, limit=limit)))
        patching = several_tasks(found, balance)
        others = find_tasks(supported, limit=limit)
        if both := next((each.name for each in others if each.base_spec in {one.base_spec for one in found}), None):
            raise UsageError(f"{both} is to be patched, and supported too", "name it once")
        return cls(patching, tuple(other_tasks(patching, others)))

    @classmethod
    def of(cls, config: TrainConfig) -> RunTasks:
        """Look up the tasks that the settings name."""
        return cls.find(
            config.tasks or config.task, config.supported, config.classnames, config.templates, config.limit, config.balance
        )  # fmt: skip

    def further(self, tasks: Sequence[Task | str] | Task | str, limit: int | None = None) -> tuple[Task, ...]:
        """Look up tasks that are measured besides. Raises :class:`UsageError` for one that is patched or supported anyway."""
        found = [each for each in listed(tasks) if isinstance(each, Task)]
        found += find_tasks([each for each in listed(tasks) if isinstance(each, str)], limit=limit)
        known = {each.name for each in (*self.patching.each, *self.supported)}
        for task in found:
            if task.name in known:
                raise UsageError(f"{task.name} is measured anyway, or another task of this name is", "leave it out")
        return tuple(found)


def _trained(task: Task) -> Task:
    return Task(task.base_spec, task.dataset) if task.split == "train" else task


def other_tasks(
    patching: Task, tasks: Sequence[Task | str] | Task | str, cut: int = CUT, limit: int | None = None
) -> list[Task]:
    """Return the tasks to measure besides ``patching``; words are looked up.

    Raises :class:`UsageError` where two of them would be told apart by nothing but a split or a folder.
    """
    tasks, patched = listed(tasks), {each.base_spec for each in patching.each}
    others = [task for task in tasks if isinstance(task, Task)]
    others += find_tasks([task for task in tasks if isinstance(task, str)], cut=cut, limit=limit)
    other_split = next((t for t in others if t.base_spec in patched and t.is_own_split), None)
    if other_split:
        problem = f"{other_split.spec} is a split of the task that is patched, {patching.name}"
        raise UsageError(problem, MEASURE_AFTERWARDS.format(other_split.spec))
    others = [task for task in others if task.base_spec not in patched]
    seen = {each.name: each.spec for each in patching.each}
    for task in others:
        if task.name in seen:
            raise UsageError(
                f"two tasks of one sweep are called {task.name!r}: {seen[task.name]} and {task.spec}",
                "name one of them, or rename a folder",
            )
        seen[task.name] = task.spec
    return others


def several_tasks(tasks: Sequence[Task], balance: Balance = "examples") -> Task:
    """Return tasks that are patched together as one task with parts; one alone is itself.

    Raises :class:`UsageError` for two of one name.
    """
    if len(tasks) == 1:
        return tasks[0]
    seen: dict[str, Task] = {}
    for task in tasks:
        other = seen.setdefault(task.name, task)
        if other is not task:
            specs = f": {other.spec} and {task.spec}" if other.spec != task.spec else ""
            raise UsageError(
                f"two tasks to patch are called {task.name!r}{specs}", "name each once, or rename a folder"
            )
    spec = ",".join(task.base_spec for task in tasks)
    return Task(spec, joint_dataset([task.dataset for task in tasks], balance), parts=tuple(tasks))
