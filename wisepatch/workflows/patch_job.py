"""Carry out a patch that was checked: fine-tune, and sweep alpha between what there was before and the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wisepatch.config import EvalConfig, ModelConfig
from wisepatch.errors import out_of_memory
from wisepatch.evaluation.validation import watcher
from wisepatch.progress import Progress
from wisepatch.store.checkpoints import Store
from wisepatch.task_roles import RunTasks
from wisepatch.train_config import TrainConfig
from wisepatch.training.finetuning import Finetuned, finetune
from wisepatch.training.fisher_information import EXAMPLES
from wisepatch.workflows.sweep import Sweep, run_sweep
from wisepatch.workflows.sweep_plan import SweepPlan


@dataclass(frozen=True)
class PatchJob:
    """A patch with all that decides about it: training, tasks, the plan of its sweep, and where it works."""

    config: TrainConfig
    model: ModelConfig
    store: Store
    data: Path
    tasks: RunTasks
    plan: SweepPlan
    settings: EvalConfig
    run: str
    run_name: str = ""
    fresh: bool = False
    fisher_examples: int = EXAMPLES
    progress: Progress | None = None

    def finetune(self) -> Finetuned:
        """Fine-tune on what is to be patched; with ``config.eval_every`` set, look at validation data as it goes."""
        return finetune_on(
            self.config, self.model, self.store, self.data, self.progress, self.tasks, self.run_name, fresh=self.fresh
        )  # fmt: skip

    def sweep(self, finished: Finetuned) -> Sweep:
        """Sweep alpha for the end of a training; what fails is told how to go on without training again."""
        try:
            return run_sweep(
                self.plan, finished.finetuned, self.store, self.data, run=self.run, run_name=self.run_name,
                fisher_examples=self.fisher_examples, settings=self.settings, progress=self.progress,
            )  # fmt: skip
        except BaseException as error:
            known = out_of_memory(error, "--eval-batch-size") if isinstance(error, Exception) else None
            go_on = self.plan.command(
                finished.finetuned, self.store, self.data, fisher_examples=self.fisher_examples, run_name=self.run_name,
                precision=self.settings.mixed_precision,
            )  # fmt: skip
            (known or error).add_note(f"the fine-tuned model is stored; go on with: {go_on}")
            if known:
                raise known from error
            raise


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
