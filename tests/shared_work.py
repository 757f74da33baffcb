"""Work that one process or several do on a store: everything that is shared, with batches whose sizes do not divide.

``python -m tests.shared_work FOLDER IMAGES`` is one of the processes; FOLDER holds the stores.
"""

import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from unittest import mock

from wisepatch import EvalConfig, ModelConfig, Store, TrainConfig, evaluate, find_task, finetune, process_group
from wisepatch.evaluation import pixels
from wisepatch.evaluation.validation import watcher
from wisepatch.models import zeroshot_head
from wisepatch.models.tower import Tower
from wisepatch.ranks import rank
from wisepatch.training import squared_gradients
from wisepatch.workflows.sweep import sweep

SMALL = [
    (squared_gradients, "MAX_BATCH_IMAGES", 3),
    (zeroshot_head, "TEXTS_PER_BATCH", 4),
    (pixels, "IMAGES_PER_WRITE", 3),
]
SETTINGS = EvalConfig(batch_size=2, workers=0)
KINDS = {"wise-ft": {"head": "trained"}, "linear-probe": {"freeze_encoder": True}}


def measure(folder, images):
    """Sweep by Fisher information, evaluate cached pixels and fixed features, build heads."""
    store, probes = Store(folder / "store"), Store(folder / "probes")
    few = find_task(str(folder / "few"), None, ("a {}.", "the {}.", "one {}."))
    sweep(store, folder, tasks=[], alphas=(0, 0.3, 1), method="fisher", fisher_examples=10, settings=SETTINGS)
    cached = replace(SETTINGS, cache_images=True)
    evaluate([store.find("zeroshot")], [find_task(f"{images}@train"), few], store, folder, settings=cached)
    sweep(probes, folder, tasks=[], alphas=(0, 0.5, 1), settings=SETTINGS)
    sweep(probes, folder, tasks=[], alphas=(0, 0.25, 1), settings=SETTINGS)  # recalls two of three


def train(folder, images):
    """Train in every way, with a last batch of an epoch that has fewer images than there are processes; return the losses."""
    losses = {}
    for kind, settings in KINDS.items():
        config = TrainConfig.with_defaults(
            images, steps=4, epochs=None, batch_size=5, lr=1e-3, warmup=0, eval_every=1, **settings
        )
        store, lines = Store(folder / kind), []
        watch = watcher([find_task(config.task)], store, folder, SETTINGS)

        def told(*given, watch=watch, lines=lines):
            validation = watch(*given)
            lines.append(validation.text)
            return validation

        done = finetune(config, ModelConfig("demo", ""), store, folder, watch=told)
        losses[kind] = [done.losses, lines]
    return losses


def counted(holder, name, kind, done, argument):
    """Count the images, or texts, that this process computes."""
    original = getattr(holder, name)

    def counting(*given, **more):
        done[kind] = done.get(kind, 0) + len(given[argument])
        return original(*given, **more)

    return mock.patch.object(holder, name, counting)


def work(folder, images):
    done = {}
    with ExitStack() as stack:
        for module, name, value in SMALL:
            stack.enter_context(mock.patch.object(module, name, value))
        stack.enter_context(counted(Tower, "features", "images", done, 1))
        stack.enter_context(counted(zeroshot_head, "text_features", "texts", done, 1))
        stack.enter_context(counted(squared_gradients, "batched", "gradients", done, 2))
        measure(folder, images)
    (folder / f"done-{rank()}.json").write_text(json.dumps(done))
    losses = train(folder, images)
    if process_group.is_main():
        (folder / "losses.json").write_text(json.dumps(losses))
    process_group.leave()


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2])
