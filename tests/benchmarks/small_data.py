"""``python -m tests.benchmarks.small_data``: which ``--steps`` and ``--lr`` suit few training images, on the embedded tasks.

The embedded model learns Digits from 50, 200 and 1,000 images (``--limit``), at each of several steps and rates; alpha is chosen by
best-mean on validation data, and the whole test splits are measured. Prints a row a training, as Markdown.
"""

import sys
import tempfile
from itertools import product
from pathlib import Path

from wisepatch.config import ModelConfig, TrainConfig
from wisepatch.store.checkpoints import Store
from wisepatch.training.finetuning import finetune
from wisepatch.workflows.sweep import sweep

TASK, SUPPORTED = "Digits", ("Shapes", "Colors", "Textures")
IMAGES, STEPS, RATES = (50, 200, 1000), (30, 100, 300), (5e-5, 2e-4, 1e-3)
BATCH, ALPHAS = 32, "0:1:0.2"


def measure(store, images, steps, rate):
    """Test accuracy on the task and the mean of the supported ones, fine-tuned and at the chosen alpha."""
    config = TrainConfig.with_defaults(TASK, supported=SUPPORTED, limit=images, steps=steps, lr=rate, batch_size=BATCH)
    trained = finetune(config, ModelConfig("demo", ""), store, store.root)
    done = sweep(store, store.root, checkpoint=trained.finetuned, alphas=ALPHAS, rule="best-mean")
    return done.choice.alpha, done.at("test", 1.0), done.at("test", done.choice.alpha)


def show(line):
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main():
    """Print the table."""
    show("| images | steps | lr | epochs | task, alpha 1 | others, alpha 1 | chosen alpha | task | others |")
    show("|" + "---|" * 9)
    with tempfile.TemporaryDirectory(prefix="wisepatch-benchmark-") as folder:
        for images, steps, rate in product(IMAGES, STEPS, RATES):
            alpha, end, chosen = measure(Store(Path(folder)), images, steps, rate)
            values = [
                f"{100 * value:.1f}" for value in (end.patching, end.supported, chosen.patching, chosen.supported)
            ]
            cells = [
                images,
                steps,
                f"{rate:g}",
                f"{steps * BATCH / images:.1f}",
                *values[:2],
                f"{alpha:g}",
                *values[2:],
            ]
            show(f"| {' | '.join(map(str, cells))} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
