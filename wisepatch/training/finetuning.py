"""Fine-tune with Accelerate: one function, read from top to bottom.

PAINT (section 3) trains the image tower against the frozen, text-derived head. WiSE-FT (section 3) trains tower and head
end to end, or the head alone on fixed features. Both start from the zero-shot model, which becomes the checkpoint's parent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import broadcast_object_list, set_seed

from wisepatch.config import ModelConfig, TrainConfig
from wisepatch.datasets.loading import Seeded, checked, same_for_all, training_loader, weight_of, worker_count
from wisepatch.datasets.samples import Samples, set_epoch
from wisepatch.devices import device, set_up_accelerate
from wisepatch.errors import TrainingError, UsageError
from wisepatch.evaluation.features import split_features
from wisepatch.files import hash_tensors
from wisepatch.models.classifier import Classifier
from wisepatch.models.clip import Clip, load_clip
from wisepatch.models.tower import prepare_training
from wisepatch.models.zeroshot_head import check_prompts, zeroshot_head
from wisepatch.process_group import check_size, join
from wisepatch.progress import Progress, Silent
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.recipes import load_weights
from wisepatch.tasks import Task, find_task

Watcher = Callable[[Clip, Classifier, float], str]

STEPS_PER_REPORT = 10  # to look at the loss waits for the device
MAX_WARMUP_SHARE = 0.1  # of the run, where the warm-up is the paper's and not the user's


@dataclass(frozen=True)
class Finetuned:
    """A finished run: the parent (alpha 0) and the fine-tuned checkpoint (alpha 1) in the store, and the mean loss per report."""

    zeroshot: Checkpoint
    finetuned: Checkpoint
    losses: tuple[float, ...]


def finetune(
    config: TrainConfig,
    model: ModelConfig,
    store: Store,
    data: Path,
    progress: Progress | None = None,
    watch: Watcher | None = None,
    *,
    task: Task | None = None,
    others: Sequence[Task] = (),
) -> Finetuned:
    """Fine-tune ``model`` (or the checkpoint ``config.start``) on ``config.task`` and save both endpoints.

    ``task`` is ``config.task`` where it was looked up before; the prompts of ``others``, to be measured later, are checked before
    the first step. ``watch`` is called with CLIP, classifier and epoch each ``config.eval_every`` epochs and returns a line
    to show. Raises :class:`TrainingError` where the loss stops being finite, and the errors of data, model and store.
    """
    progress = progress or Silent()
    task = task or find_task(config.task, config.classnames, config.templates)
    if task.split not in (None, "train"):
        raise UsageError(
            f"{task.spec} names the {task.split} split, and training uses train",
            f"write {task.name}: a tenth of train is held out anyway",
        )
    task.dataset.check_split("train")
    if task.dataset.label_map:
        raise UsageError(
            f"{task.name} has the head of another task, whose classes merge into its own, and cannot be trained on",
            "fine-tune on the task that has this head, and measure this one",
        )
    if config.mixed_precision == "fp16" and device().type == "cpu":
        raise TrainingError("fp16 trains on a GPU only, and there is none", "use --mixed-precision bf16 or no")
    join()
    accelerator = Accelerator(
        cpu=set_up_accelerate(),
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.grad_accumulation,
        step_scheduler_with_optimizer=False,
    )
    check_size(accelerator.num_processes)
    set_seed(config.seed)

    # Load the model to start from: the published one, or a checkpoint of the store.
    start = store.find(config.start) if config.start else None
    if start:
        store.check_own(start)
    weights = load_weights(store, start) if start else None
    design = ModelConfig.from_json(start.model) if start else model
    progress.start(f"loading {design}", 1)
    clip = load_clip(design, weights)
    progress.advance()
    progress.finish()
    for other in others:
        check_prompts(clip, other.dataset.head_names, other.dataset.templates)
    classifier = Classifier(
        clip.model.visual,
        zeroshot_head(clip, task.dataset.head_names, task.dataset.templates, store, progress.note),
    )
    train_head = config.head == "trained"
    if train_head and weights and start and start.head and start.head["classes"] == list(task.dataset.head_names):
        classifier.weight.data, classifier.bias.data = weights["classifier.weight"], weights["classifier.bias"]
    zeroshot = start
    if zeroshot is None or zeroshot.head or train_head:
        zeroshot = on_main(
            accelerator, store, lambda: save_start(store, clip, task, classifier if train_head else None, start)
        )

    # Open the data. With a frozen encoder the features are computed once and stand in for the images.
    open_train, generator = partial(task.dataset.split, "train", data), torch.Generator()
    workers = 0
    if config.freeze_encoder:
        samples: Samples = split_features(
            open_train, store, hash_tensors(clip.model.visual.state_dict()), design, lambda: clip, accelerator.device,
            replace(config.evaluation, batch_size=config.batch_size), progress,
        )  # fmt: skip
    else:
        samples = Seeded(same_for_all(open_train(clip.train_transform)), config.seed)
        # On a CPU training needs every core itself: with the embedded model, other processes cost it a tenth and more.
        if config.workers is not None or accelerator.device.type != "cpu":
            workers = worker_count(config.workers, len(samples), clip.batch_bytes(config.batch_size, pixel=4))
    on_gpu = accelerator.device.type == "cuda"
    batches = training_loader(samples, config.batch_size, workers=workers, shuffle=generator, pin=on_gpu)

    # Freeze what is not trained.
    classifier.visual.requires_grad_(not config.freeze_encoder)
    if not config.freeze_encoder:
        prepare_training(classifier.visual)
    classifier.weight.requires_grad_(train_head)
    classifier.bias.requires_grad_(train_head)
    trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=config.lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=config.wd, fused=True
    )
    wrapped, optimizer = accelerator.prepare(classifier, optimizer)
    # Of each batch the loader has taken this process's share already.
    batches = prepare_data_loader(batches, accelerator.device, 1, 0, put_on_device=True, non_blocking=True)
    steps_per_epoch = math.ceil(len(batches) / config.grad_accumulation)
    steps = config.steps if config.steps is not None else max(round((config.epochs or 0) * steps_per_epoch), 1)
    warmup = warmup_steps(config, steps)
    next_watch = config.eval_every or math.inf

    # Train.
    train_mode(wrapped)
    progress.start(f"fine-tuning on {task.name}", steps)
    step, reported, epoch, images_seen, began = 0, 0, 0, 0, time.monotonic()
    loss_sum, losses = torch.zeros((), device=accelerator.device), []
    while step < steps:
        generator.manual_seed(config.seed * 1_000_003 + epoch)
        set_epoch(samples, epoch)  # typographic attacks write anew
        for batch in batches:
            images, labels = checked(batch)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, warmup, config.lr)
            with accelerator.accumulate(wrapped):
                loss = F.cross_entropy(wrapped(images), labels, label_smoothing=config.label_smoothing)
                loss = loss * weight_of(batch)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(trained, config.clip)
                optimizer.step()
                optimizer.zero_grad()
            loss_sum += loss.detach() / config.grad_accumulation
            images_seen += len(labels) * accelerator.num_processes
            if not accelerator.sync_gradients:
                continue
            step += 1
            if step == 1 or step % STEPS_PER_REPORT == 0 or step == steps:
                mean = accelerator.reduce(loss_sum, "mean").item() / (step - reported)
                loss_sum.zero_()
                losses.append(mean)
                if not math.isfinite(mean):
                    raise TrainingError(
                        f"the loss is {mean} at step {step} of {steps}",
                        "lower --lr, lengthen --warmup, or use --mixed-precision no or bf16",
                    )
                rate, lr = images_seen / (time.monotonic() - began), optimizer.param_groups[0]["lr"]
                progress.advance(step - reported, f"loss {mean:.3f}  lr {lr:.1e}  {rate:.0f} images/s")
                reported = step
            if watch and step / steps_per_epoch >= next_watch:
                progress.note(watch(clip, accelerator.unwrap_model(wrapped), step / steps_per_epoch))
                train_mode(wrapped)
                next_watch += config.eval_every or math.inf
            if step == steps:
                break
        epoch += 1
    progress.finish()

    # Save.
    if not all(torch.isfinite(parameter).all() for parameter in trained):
        raise TrainingError(
            f"weights are not finite after step {step}", "lower --lr, or use --mixed-precision no or bf16"
        )
    finetuned = on_main(accelerator, store, lambda: store.save(
        {**clip.model.state_dict(), **(_classifier_tensors(classifier) if train_head else {})},
        kind="finetuned", name=f"{checkpoint_prefix(clip.config)}/{task.name}/finetuned", model=clip.config.to_json(),
        trained_from=[zeroshot.id], training=config.training, config=config.to_json() | {"task": task.base_spec},
        head=_head_details(task) if train_head else None,
    ))  # fmt: skip
    return Finetuned(zeroshot, finetuned, tuple(losses))


def on_main(accelerator: Accelerator, store: Store, save: Callable[[], Checkpoint]) -> Checkpoint:
    """Save a checkpoint on the main process alone; every process gets it."""
    saved = [save().id if accelerator.is_main_process else ""]
    return store.get(broadcast_object_list(saved)[0])


def save_start(
    store: Store,
    clip: Clip,
    task: Task | None = None,
    head: Classifier | None = None,
    start: Checkpoint | None = None,
) -> Checkpoint:
    """Save the checkpoint at alpha 0; ``head`` is the one for ``task`` that training begins with, where it is trained too.

    That is the zero-shot checkpoint of a published model, or a ``start``: the weights of another checkpoint with this head.
    """
    prefix, kind = checkpoint_prefix(clip.config), "start" if start else "zeroshot"
    return store.save(
        {**clip.model.state_dict(), **(_classifier_tensors(head) if head else {})},
        kind=kind, name=f"{prefix}/{task.name}/{kind}" if task and (head or start) else f"{prefix}/{kind}",
        model=clip.config.to_json(), trained_from=[start.id] if start else [], training="zeroshot",
        head=_head_details(task) if task and head else None,
    )  # fmt: skip


def checkpoint_prefix(model: ModelConfig) -> str:
    """Return the first part of the names of a model's checkpoints, such as ``demo`` or ``ViT-B-32``."""
    schema, colon, rest = model.model.partition(":")
    return rest.rstrip("/").rpartition("/")[2] if colon else schema.replace("/", "-")


def train_mode(classifier: torch.nn.Module) -> None:
    """Switch to training, but leave batch normalisation as in evaluation.

    Its running statistics then stay those of the zero-shot model, so that a mix has none to recompute.
    """
    classifier.train()
    for module in classifier.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Return the rate of step ``step`` (from 0): linear warm-up, then half a cosine to zero (PAINT section 3)."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def warmup_steps(config: TrainConfig, steps: int) -> int:
    """Return the warm-up in steps as given, or the paper's, at most a tenth of the run."""
    if config.warmup is not None:
        return config.warmup
    return min(config.paper_warmup, int(steps * MAX_WARMUP_SHARE))


def _classifier_tensors(classifier: Classifier) -> Mapping[str, torch.Tensor]:
    return {"classifier.weight": classifier.weight.data, "classifier.bias": classifier.bias.data}


def _head_details(task: Task) -> dict[str, Any]:
    return {"task": task.name, "classes": list(task.dataset.head_names)}
