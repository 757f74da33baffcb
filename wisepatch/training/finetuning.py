"""Fine-tune with Accelerate: one function, read from top to bottom.

PAINT (section 3) trains the image tower against the frozen, text-derived head. WiSE-FT (section 3) trains tower and head
end to end, or the head alone on fixed features. Both start from the zero-shot model, which becomes the checkpoint's parent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate.utils import set_seed

from wisepatch.config import ModelConfig
from wisepatch.datasets.loading import same_for_all
from wisepatch.datasets.splits import CUT
from wisepatch.datasets.training_batches import Plan, Seeded
from wisepatch.errors import Stopped, TrainingError
from wisepatch.evaluation.validation import Validation
from wisepatch.files import expanded, hash_tensors
from wisepatch.models.classifier import Classifier
from wisepatch.models.clip import Clip
from wisepatch.models.two_towers import TwoTowers
from wisepatch.models.zeroshot_head import check_prompts, zeroshot_head
from wisepatch.plugins import find_objective
from wisepatch.process_group import on_main
from wisepatch.progress import Progress, Silent
from wisepatch.ranks import size
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.task_roles import RunTasks
from wisepatch.tasks import Task
from wisepatch.train_config import TrainConfig
from wisepatch.training.averaging import average_of
from wisepatch.training.data import batches_from, class_weights, fixed_features, normalised, open_samples
from wisepatch.training.layers import decayed_groups, freeze, trained_parameters
from wisepatch.training.low_rank import merge
from wisepatch.training.objectives.start import TrainingStart, objective_params, training_name
from wisepatch.training.resume import Position, Signals, States, check_room_for_training, open_run
from wisepatch.training.schedule import learning_rate, warmup_steps
from wisepatch.training.start import (
    check_trainable,
    checkpoint_prefix,
    classifier_tensors,
    head_details,
    load_start,
    new_accelerator,
)
from wisepatch.training.tracking import tracked
from wisepatch.training.unlabelled import open_unlabelled, shows_test_images

if TYPE_CHECKING:
    from accelerate import Accelerator

Watcher = Callable[[Clip, Classifier, float], Validation]

STEPS_PER_REPORT = 10  # to look at the loss waits for the device


@dataclass(frozen=True)
class Finetuned:
    """A finished run: the parent (alpha 0) and the fine-tuned checkpoint (alpha 1) in the store, and the mean loss per report."""

    zeroshot: Checkpoint
    finetuned: Checkpoint
    losses: tuple[float, ...]

    def __repr__(self) -> str:
        """Return the two checkpoints and the last loss."""
        return f"Finetuned({self.zeroshot!r}, {self.finetuned!r}, loss {self.losses[-1]:.3f})"


def finetune(
    config: TrainConfig,
    model: ModelConfig,
    store: Store,
    data: Path | str,
    progress: Progress | None = None,
    watch: Watcher | None = None,
    *,
    task: Task | None = None,
    others: Sequence[Task] = (),
    run_name: str = "",
    fresh: bool = False,
) -> Finetuned:
    """Fine-tune ``model`` (or the checkpoint ``config.start``) on ``config.task`` and save both endpoints.

    ``task`` is ``config.task`` where it was looked up before; the prompts of ``others``, to be measured later, are checked before
    the first step. Tables and pictures call the training ``run_name``.
    ``watch`` is called with CLIP, classifier and epoch each ``config.eval_every`` epochs; ``config.keep_best``
    and ``config.patience`` go by its score.

    A training that was interrupted goes on where its state was saved last, and one that is finished is not repeated; ``fresh``
    begins anew. Raises :class:`TrainingError` where the loss stops being finite, :class:`~wisepatch.errors.Stopped` after a
    signal, with the state saved, :class:`DataError` where the images are not those that the training began with, and the errors
    of data, model and store.
    """
    progress = progress or Silent()
    data = expanded(data)
    if task is None:  # what is to be measured later is looked up now too
        tasks = RunTasks.of(config)
        task, others = tasks.patching, others or tasks.supported
    check_trainable(config, task)
    objective = find_objective(config.objective)
    accelerator = new_accelerator(config, store)
    set_seed(config.seed)

    # Load the model to start from, and save it as the parent.
    clip, classifier, zeroshot = load_start(config, model, store, task, progress)
    for other in others:
        check_prompts(clip, other.dataset.head_names, other.dataset.templates)

    # Open the data, and look for an earlier run of this very training.
    samples, workers, fingerprint = open_samples(config, task, clip, store, data, accelerator, progress)
    plan = Plan(len(samples), config.batch_size, config.seed)
    unlabelled = None
    if config.distill_on:
        if shows_test_images(config.distill_on):
            progress.note(f"images of {config.distill_on} are trained on, without labels: no new ones to measure it by")
        others_split = same_for_all(open_unlabelled(config.distill_on, data, clip.train_pixels))
        unlabelled, fingerprint = Seeded(others_split, config.seed), f"{fingerprint} {others_split.fingerprint()}"
    identity = {
        "config": {name: value for name, value in config.identity.items() if name != "workers"} | {"task": task.base_spec},
        "parent": zeroshot.id, "processes": size(),
        "head": hash_tensors({"weight": classifier.weight, "bias": classifier.bias}),
    }  # fmt: skip
    with open_run(store, identity, fingerprint, task.name, progress.note, fresh=fresh, name=run_name) as (run, outcome):
        if outcome:
            progress.note(f"{task.name}: this training is finished already, and taken as it is; --fresh repeats it")
            return Finetuned(store.get(outcome["zeroshot"]), store.get(outcome["finetuned"]), tuple(outcome["losses"]))

        # Prepare what is minimised: teachers and starting points are those of before the first step.
        of_classes = class_weights(config, samples, task, accelerator.device)
        loss_of_batch = objective.prepare(
            TrainingStart(
                clip, classifier, task, config, objective_params(config), accelerator.device, others, of_classes,
                accelerator.autocast, partial(fixed_features, config, task, clip, store, data, accelerator, progress),
            )
        )  # fmt: skip
        if objective.trains_text:
            classifier = TwoTowers(clip, classifier)

        # Freeze what is not trained.
        trained = freeze(config, classifier)
        groups = decayed_groups(classifier, config.layer_decay)
        decay = 0.0 if objective.replaces_decay else config.wd
        check_room_for_training(
            store, clip.model, classifier, trained, saves=0 < config.save_every < (config.steps or math.inf)
        )
        optimizer = torch.optim.AdamW(
            groups or trained, lr=config.lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=decay, fused=True
        )
        wrapped, optimizer = accelerator.prepare(classifier, optimizer)
        steps_per_epoch = math.ceil(plan.batches_per_epoch / config.grad_accumulation)
        steps = config.steps if config.steps is not None else max(round((config.epochs or 0) * steps_per_epoch), 1)
        warmup = warmup_steps(config, steps)

        # Go on where an earlier run stopped, if one did.
        average = average_of(config, trained_parameters(classifier), steps)
        states = States(run, accelerator, progress.note, average)
        at, best = states.restore() or (Position(next_validation=config.eval_every or math.inf), {})
        if at.step:
            progress.note(f"{task.name}: going on after step {at.step} of {steps}; --fresh begins anew")

        # Train.
        train_mode(wrapped)
        progress.start(f"fine-tuning on {task.name}", steps)
        if at.step:
            progress.advance(at.step)
        images_seen, began = 0, time.monotonic()
        loss_sum = torch.tensor(at.loss_sum, device=accelerator.device)
        with Signals(progress.note) as signals, tracked(accelerator, config, run, progress) as log:
            for batch, ends_step in batches_from(at, samples, plan, config, steps, workers, accelerator, unlabelled):
                rate = learning_rate(min(at.step, average.holds_rate_from), steps, warmup, config.lr)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group.get("scale", 1.0)
                accelerator.sync_gradients = ends_step
                with nullcontext() if ends_step else accelerator.no_sync(wrapped):
                    loss = loss_of_batch(wrapped, normalised(batch, clip))
                    accelerator.backward(loss)
                    if ends_step:
                        accelerator.clip_grad_norm_(trained, config.clip)
                    optimizer.step()
                    optimizer.zero_grad()
                loss_sum += loss.detach() / config.grad_accumulation
                images_seen += len(batch.labels) * size()
                if not ends_step:
                    continue
                at.step += 1
                average.update(at.step)
                epoch = at.step / steps_per_epoch
                reports = at.step == 1 or at.step % STEPS_PER_REPORT == 0 or at.step == steps
                if reports:
                    mean = mean_of_all(loss_sum, accelerator) / (at.step - at.reported)
                    loss_sum.zero_()
                    if not math.isfinite(mean):
                        raise TrainingError(
                            f"the loss is {mean} at step {at.step} of {steps}",
                            "lower --lr, lengthen --warmup, or use --mixed-precision no or bf16",
                        )
                    speed = images_seen / (time.monotonic() - began)
                    progress.advance(at.step - at.reported, f"loss {mean:.3f}  lr {rate:.1e}  {speed:.0f} images/s")
                    log(step=at.step, epoch=epoch, loss=mean, lr=rate, images_per_second=speed)
                    at.losses.append(mean)
                    at.reported = at.step
                if watch and epoch >= at.next_validation:
                    at.next_validation += config.eval_every or math.inf
                    with average.in_place():
                        if objective.trains_text:
                            take_head_from_text(classifier, clip, task)
                        validation = watch(clip, accelerator.unwrap_model(wrapped), epoch)
                        train_mode(wrapped)
                        progress.note(validation.text)
                        log(step=at.step, epoch=epoch, validation=dict(validation.values))
                        if at.is_better(validation.score, epoch):
                            best = {
                                name: each.detach().cpu().clone()
                                for name, each in trained_parameters(classifier).items()
                            }
                    if config.patience and at.validations_since_best >= config.patience:
                        progress.note(f"stopping after step {at.step}: nothing better since epoch {at.best_epoch:.1f}")
                        break
                if at.step == steps:
                    break
                asked, stop = signals.asked() if reports or size() == 1 else (False, 0)
                if asked or (config.save_every and at.step % config.save_every == 0):
                    at.loss_sum = mean_of_all(loss_sum, accelerator)
                    problem = states.save(at, best)
                    saved = f"cannot be saved ({problem})" if problem else "is saved"
                    if problem:
                        progress.note(f"the state after step {at.step} {saved}; the training goes on")
                    if stop:
                        note = f"the state after step {at.step} of {steps} {saved}; the same command goes on from "
                        raise Stopped(stop, note + ("the one before" if problem else "there"))
        progress.finish()
        if best:
            progress.note(f"keeping the weights of epoch {at.best_epoch:.1f}, the best on validation data")
            classifier.load_state_dict(best, strict=False)
        else:
            average.put_in_place()

        # Save.
        if not all(torch.isfinite(parameter).all() for parameter in trained):
            raise TrainingError(
                f"weights are not finite after step {at.step}", "lower --lr, or use --mixed-precision no or bf16"
            )
        merge(classifier)
        train_head = config.head == "trained"
        finetuned = on_main(lambda: store.save(
            {**clip.model.state_dict(), **(classifier_tensors(classifier) if train_head else {})},
            kind="finetuned", name=f"{checkpoint_prefix(clip.config)}/{task.name}/finetuned", model=clip.config.to_json(),
            trained_from=[zeroshot.id], training=training_name(config),
            config=config.identity | {"task": task.base_spec, "cut": CUT},
            head=head_details(task) if train_head else None,
        ))  # fmt: skip
        run.finish({"zeroshot": zeroshot.id, "finetuned": finetuned.id, "losses": at.losses})
    return Finetuned(zeroshot, finetuned, tuple(at.losses))


def mean_of_all(value: torch.Tensor, accelerator: Accelerator) -> float:
    """Return the mean of a number over all processes."""
    return float(accelerator.reduce(value, "mean"))


def take_head_from_text(classifier: Classifier, clip: Clip, task: Task) -> None:
    """Give ``classifier`` the head of ``task`` from the text tower as it is now: where that is trained, its head follows."""
    head = zeroshot_head(clip, task.dataset.head_names, task.dataset.templates)
    with torch.no_grad():
        classifier.weight.copy_(head)


def train_mode(classifier: torch.nn.Module) -> None:
    """Switch to training, but leave batch normalisation as in evaluation.

    Its running statistics then stay those of the zero-shot model, so that a mix has none to recompute.
    """
    classifier.train()
    for module in classifier.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
