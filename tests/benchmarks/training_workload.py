"""W5: seconds a step of fine-tuning, set-up and the first step not counted."""

import shutil
import time
from functools import partial
from pathlib import Path

from tests.benchmarks.harness import cpu_seconds, measure

BATCH, RATE, DECAY = 32, 1e-5, 0.1


def prepare(clock, folder, model):
    """32 pictures of one colour each, which no random crop changes, and a start with random weights."""
    from PIL import Image

    from tests.benchmarks.material import CLASSES

    for split, count in (("train", BATCH), ("val", len(CLASSES)), ("test", len(CLASSES))):
        for index in range(count):
            home = folder / "colours" / split / CLASSES[index % len(CLASSES)]
            home.mkdir(parents=True, exist_ok=True)
            colour = tuple((37 * index + shift) % 256 for shift in (0, 80, 160))
            Image.new("RGB", (256, 256), colour).save(home / f"{index:03}.png")
    save_start(clock, folder, model, "colours")


def save_start(clock, folder, model, images):
    """A start with random weights, as a store and as the papers' module."""
    from tests.benchmarks import reference
    from tests.benchmarks.material import random_encoder
    from wisepatch import Store, find_task, zeroshot_head

    clip = random_encoder(model)
    task = find_task(str(folder / images))
    Store(folder / "store").save(
        clip.model.state_dict(), kind="zeroshot", name="start", model=clip.config.to_json(), training="zeroshot"
    )
    head = reference.ClassificationHead(zeroshot_head(clip, task.dataset.head_names, task.dataset.templates))
    module = reference.ImageClassifier(reference.ImageEncoder(clip.model, clip.train_transform), head)
    reference.save(module, folder / "start.pt")


class Steps:
    """A progress that notes when steps end; the time a step is that from the first to the last of them."""

    def __init__(self):
        self.times, self.done, self.counting = [], 0, False

    def start(self, what, total):
        self.counting = what.startswith("fine-tuning")

    def advance(self, steps=1, detail=""):
        if self.counting:
            self.done += steps
            self.times.append((self.done, time.perf_counter(), cpu_seconds()))

    def finish(self):
        self.counting = False

    def note(self, text):
        pass

    def set(self, clock):
        (first, wall, cpu), (last, wall_end, cpu_end) = self.times[0], self.times[-1]
        clock.wall, clock.cpu = (wall_end - wall) / (last - first), (cpu_end - cpu) / (last - first)


def reference_steps(clock, folder, steps, images="colours", batch=BATCH, workers=0, half=False):
    """The papers' loop; returns the losses."""
    import torch
    from torchvision.datasets import ImageFolder

    from tests.benchmarks import reference

    torch.manual_seed(0)
    classifier = reference.load(folder / "start.pt")
    photos = ImageFolder(folder / images / "train", transform=classifier.val_preprocess)
    watch = Steps()
    watch.start("fine-tuning", steps)
    losses = reference.finetune(
        classifier, photos, steps, lr=RATE, wd=DECAY, batch_size=batch, workers=workers, warmup=1, stepped=watch.advance,
        half=half,
    )  # fmt: skip
    watch.advance(0)  # by now a GPU has done what it was told
    watch.set(clock)
    return losses


def wisepatch_steps(clock, folder, steps, mixed_precision, images="colours", batch=BATCH):
    """Wisepatch's ``finetune``, which reports after the first step, each tenth and the last; returns what it reports."""
    from wisepatch import ModelConfig, Store, TrainConfig, finetune

    own = folder / f"store-{mixed_precision}"
    shutil.copytree(folder / "store", own)
    watch = Steps()
    config = TrainConfig(
        str(folder / images), steps=steps, lr=RATE, wd=DECAY, batch_size=batch, warmup=1, start="start",
        mixed_precision=mixed_precision,
    )  # fmt: skip
    try:
        losses = finetune(config, ModelConfig("ViT-B-32", "openai"), Store(own), Path(folder), watch).losses
    finally:
        shutil.rmtree(own)
    watch.set(clock)
    return losses


def last_report(losses):
    """What wisepatch reports last, of the losses of all steps: the mean since step 1 or the last tenth one."""
    since = max(1, (len(losses) - 1) // 10 * 10)
    return sum(losses[since:]) / len(losses[since:])


def step(bench):
    """ViT-B/32, 32 images, the head frozen (PAINT), fp32 and bf16 beside the papers' fp32."""
    bench.do(prepare, folder=bench.folder, model="ViT-B-32")
    steps = 3 if bench.quick else 11
    sides = {"reference": partial(measure, reference_steps, folder=bench.folder, steps=steps)} | {
        name: partial(measure, wisepatch_steps, folder=bench.folder, steps=steps, mixed_precision=precision)
        for name, precision in (("fp32", "no"), ("bf16", "bf16"))
    }
    found = bench.alternate(sides)
    theirs = last_report(found["reference"][0].result)
    for name, aim, tolerance in (("fp32", 1.1, 1e-3), ("bf16", 1.5, 2e-2)):
        loss = found[name][0].result[-1]
        note = f"a step; last loss {theirs:.4f} and {loss:.4f}"
        agree = abs(loss - theirs) <= tolerance * abs(theirs)
        yield bench.row(f"{name}: ViT-B/32, batch of {BATCH}", found["reference"], found[name], agree, aim, note)
