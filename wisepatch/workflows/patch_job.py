"""Carry out a patch that was checked: fine-tune, and sweep alpha between what there was before and the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wisepatch.config import ModelConfig
from wisepatch.errors import out_of_memory
from wisepatch.evaluation.validation import watcher
from wisepatch.progress import Progress
from wisepatch.store.checkpoints import Store
from wisepatch.task_roles import RunTasks
from wisepatch.train_config import TrainConfig
from wisepatch.training.finetuning import Finetuned, finetune
from wisepatch.training.fisher_information import EXAMPLES
from wisepatch.workflows.run import Run
from wisepatch.workflows.sweep import Sweep, run_sweep
from wisepatch.workflows.sweep_plan import SEQUENTIAL, SweepPlan


@dataclass(frozen=True)
class PatchJob:
    """A patch with all that decides about it: training, tasks, the plan of its sweep, and the run that it is part of."""

    config: TrainConfig
    model: ModelConfig
    tasks: RunTasks
    plan: SweepPlan
    run: Run
    fresh: bool = False
    fisher_examples: int = EXAMPLES

    def finetune(self) -> Finetuned:
        """Fine-tune on what is to be patched; with ``config.eval_every`` set, look at validation data as it goes."""
        run = self.run
        return finetune_on(
            self.config, self.model, run.store, run.data, run.progress, self.tasks, run.name, fresh=self.fresh
        )

    def sweep(self, finished: Finetuned) -> Sweep:
        """Sweep alpha for the end of a training; what fails is told how to go on without training again."""
        try:
            return run_sweep(self.plan, finished.finetuned, self.run, fisher_examples=self.fisher_examples)
        except BaseException as error:
            known = out_of_memory(error, "--eval-batch-size") if isinstance(error, Exception) else None
            (known or error).add_note(f"the fine-tuned model is stored; {self._how_to_go_on(finished)}")
            if known:
                raise known from error
            raise

    def _how_to_go_on(self, finished: Finetuned) -> str:
        """Return how to go on with the sweep of a training; one of several trainings is a part of its command."""
        if self.plan.strategy == SEQUENTIAL:
            return f"the same command goes on from it ({finished.finetuned.id})"
        run = self.run
        command = self.plan.command(
            finished.finetuned, run.store, run.data, fisher_examples=self.fisher_examples, run_name=run.name,
            precision=(run.settings or self.config.evaluation).mixed_precision,
        )  # fmt: skip
        return f"go on with: {command}"


def finetune_on(
    config: TrainConfig,
    model: ModelConfig,
    store: Store,
    data: Path,
    progress: Progress | None,
    tasks: RunTasks,
    run_name: str = "",
    *,
    fresh: bool = False,
) -> Finetuned:
    """Fine-tune on the patching task of ``tasks``; the prompts of the others are checked before the first step."""
    watched = [tasks.patching, *tasks.supported]
    watch = watcher(watched, store, data, config.evaluation, config.keep_best) if config.eval_every else None
    return finetune(
        config, model, store, data, progress, watch, task=tasks.patching, others=tasks.supported, run_name=run_name, fresh=fresh,
    )  # fmt: skip
