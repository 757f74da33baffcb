"""``python -m tests.benchmarks.small_data``: which ``--steps`` and ``--lr`` suit few training images, on the embedded tasks.

The embedded model learns Digits from 50, 200 and 1,000 images (``--limit``), at each of several steps and rates; alpha is chosen by
best-mean on validation data, and the whole test splits are measured. Prints a row a training, as Markdown. ``--task``,
``--images``, ``--steps``, ``--lr``, ``--rule`` and ``--seed`` (the numbers repeatable) ask for others, ``--measured N`` measures
no more than N images of each split; with ``--store`` an interrupted run goes on.
"""

import argparse
import sys
import tempfile
from itertools import product
from pathlib import Path

from wisepatch.config import ModelConfig
from wisepatch.store.checkpoints import Store
from wisepatch.train_config import TrainConfig
from wisepatch.training.finetuning import finetune
from wisepatch.workflows.sweep import sweep

TASK, SUPPORTED = "Digits", ("Shapes", "Colors", "Textures")
IMAGES, STEPS, RATES = (50, 200, 1000), (30, 100, 300, 1000), (5e-5, 2e-4, 1e-3)
BATCH, ALPHAS = 32, "0:1:0.2"


def measure(store, task, images, steps, rate, seed, rule, measured):
    """Test accuracy on the task and the mean of the supported ones, fine-tuned and at the chosen alpha."""
    config = TrainConfig.with_defaults(
        task, supported=SUPPORTED, limit=images, steps=steps, lr=rate, batch_size=BATCH, seed=seed, save_every=0
    )
    trained = finetune(config, ModelConfig("demo", ""), store, store.root)
    done = sweep(store, store.root, checkpoint=trained.finetuned, alphas=ALPHAS, rule=rule, limit=measured)
    return done.choice.alpha, done.at("test", 1.0), done.at("test", done.choice.alpha)


def show(line):
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", default=TASK)
    parser.add_argument("--images", action="append", type=int)
    parser.add_argument("--steps", action="append", type=int)
    parser.add_argument("--lr", action="append", type=float)
    parser.add_argument("--rule", default="best-mean")
    parser.add_argument("--seed", action="append", type=int)
    parser.add_argument("--measured", type=int)
    parser.add_argument("--store", type=Path)
    asked = parser.parse_args()
    show("| images | steps | lr | epochs | seed | task, alpha 1 | others, alpha 1 | chosen alpha | task | others |")
    show("|" + "---|" * 10)
    with tempfile.TemporaryDirectory(prefix="wisepatch-benchmark-") as folder:
        store = Store(asked.store or Path(folder))
        trainings = product(asked.images or IMAGES, asked.steps or STEPS, asked.lr or RATES, asked.seed or [0])
        for images, steps, rate, seed in trainings:
            alpha, end, chosen = measure(store, asked.task, images, steps, rate, seed, asked.rule, asked.measured)
            at_end, at_choice = (
                " | ".join(f"{100 * value:.1f}" for value in (point.patching, point.supported))
                for point in (end, chosen)
            )
            cells = [images, steps, f"{rate:g}", f"{steps * BATCH / images:.1f}", seed, at_end, f"{alpha:g}", at_choice]
            show(f"| {' | '.join(map(str, cells))} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
