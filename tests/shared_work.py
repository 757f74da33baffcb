"""Work that one process or several do on a store: everything that is shared, with batches whose sizes do not divide.

``python -m tests.shared_work FOLDER`` is one of the processes; FOLDER holds ``images`` and ``store``.
"""

import json
import sys
from pathlib import Path
from unittest import mock

from wisepatch import EvalConfig, ModelConfig, Store, TrainConfig, evaluate, find_task, finetune, process_group
from wisepatch.evaluation import pixels
from wisepatch.evaluation.validation import watcher
from wisepatch.models import zeroshot_head
from wisepatch.training import fisher_information
from wisepatch.workflows.sweep import sweep

SMALL = [
    (fisher_information, "MAX_BATCH_IMAGES", 3),
    (zeroshot_head, "TEXTS_PER_BATCH", 4),
    (pixels, "IMAGES_PER_WRITE", 3),
]
SETTINGS = EvalConfig(batch_size=2, workers=0)
KINDS = {"wise-ft": {"head": "trained"}, "linear-probe": {"freeze_encoder": True}}


def measure(folder):
    """Sweep by Fisher information, evaluate cached pixels and fixed features, build heads."""
    store, images = Store(folder / "store"), find_task(str(folder / "images"))
    others = [find_task(f"{folder / 'images'}@val"), find_task("Digits@val", None, ("a {}.", "the {}."))]
    sweep(store, folder, tasks=[images], alphas=(0, 0.3, 1), method="fisher", fisher_examples=10, settings=SETTINGS)
    evaluate(
        [store.find("zeroshot")],
        [images, *others[:1]],
        store,
        folder,
        settings=EvalConfig(batch_size=2, workers=0, cache_images=True),
    )
    with mock.patch.object(type(others[1].dataset), "split", few(others[1].dataset.split)):
        evaluate([store.find("finetuned")], others[1:], store, folder, settings=SETTINGS)
    probes = Store(folder / "probes")
    sweep(probes, folder, alphas=(0, 0.5, 1), settings=SETTINGS)


def few(open_split):
    """The first three images of any split: fewer than a process each."""
    from dataclasses import replace

    from wisepatch import Subset

    def opened(self, name, data, transform=None):
        whole = open_split(name, data, transform)
        return replace(whole, samples=Subset(whole.samples, range(3)))

    return opened


def train(folder):
    """Train in every way, with a last batch of an epoch that has fewer images than there are processes; return the losses."""
    losses = {}
    for kind, settings in KINDS.items():
        config = TrainConfig.with_defaults(
            str(folder / "images"), steps=4, epochs=None, batch_size=5, lr=1e-3, warmup=0, eval_every=1, **settings
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


def work(folder):
    for module, name, value in SMALL:
        setattr(module, name, value)
    measure(folder)
    losses = train(folder)
    if process_group.is_main():
        (folder / "losses.json").write_text(json.dumps(losses))
    process_group.leave()


if __name__ == "__main__":
    work(Path(sys.argv[1]))
