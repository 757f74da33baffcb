"""``python -m tests.benchmarks.objectives``: ways to fine-tune, compared after mixing, with the embedded model.

``--task NAME`` (repeatable; Digits, FashionMNIST and typo:Shapes without) trains in each way once a seed, chooses alpha by a
certified drop of two points, and prints a row a way, as Markdown. ``--cost`` prints the time of a step and the peak of memory
instead. With ``--store`` an interrupted run goes on. FashionMNIST is Debian's package dataset-fashion-mnist.
"""

import argparse
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, stdev
from unittest import mock

from tests.benchmarks.harness import measure
from wisepatch import ModelConfig, Store, TrainConfig, compare_trainings, finetune
from wisepatch.training import finetuning

TASKS, SUPPORTED = ("Digits", "FashionMNIST", "typo:Shapes"), ("Shapes", "Textures")
SEEDS, ALPHAS, RULE = (0, 1, 2), "0:1:0.2", "max-drop=0.02@95"
SETTINGS = {"supported": SUPPORTED, "steps": 60, "lr": 5e-4, "batch_size": 32, "limit": 300, "save_every": 0}
PLAIN = "cross-entropy"
WAYS = {
    PLAIN: {},
    "trained head": {"head": "trained", "epochs": None},
    "flyp": {"objective": "flyp"},
    "lp-ft": {"objective": "lp-ft", "head": "trained", "epochs": None},
    "l2-sp": {"objective": "l2-sp"},
    "distill": {"objective": "distill"},
    "distill on Colors": {"objective": "distill", "distill_on": "Colors"},
    "lipsum": {"objective": "lipsum"},
    "car-ft": {"objective": "car-ft"},
    "EMA 0.95": {"ema": 0.95},
    "SWA": {"swa": True},
    "layer decay 0.65": {"layer_decay": 0.65},
    "freeze": {"freeze": ("stem", "0", "1")},
    "LoRA 8": {"lora": 8},
}
COST_STEPS = 12


def settings_of(task, way):
    return TrainConfig.with_defaults(task, **SETTINGS | WAYS[way])


def spread(values, sign=""):
    """Mean and standard deviation over seeds, in per cent."""
    return f"{100 * mean(values):{sign}.1f} ± {100 * stdev(values):.1f}"


def compare(task, folder, ways, rule, layers):
    """Yield the rows of one task."""
    found = compare_trainings(
        {way: settings_of(task, way) for way in ways}, ModelConfig("demo", ""), Store(folder), folder,
        seeds=SEEDS, alphas=ALPHAS, rule=rule, layers=layers,
    )  # fmt: skip
    for way in found:
        zero = way.accuracies(0.0)
        (patching, supported), (end, others) = way.accuracies(), way.accuracies(1.0)
        drop = [b - a for a, b in zip(supported, zero[1], strict=True)]
        drop_at_end = [b - a for a, b in zip(others, zero[1], strict=True)]
        against = (
            ""
            if way.against is None
            else f"{100 * way.against.value:+.1f} ({100 * way.against.low:+.1f} to {100 * way.against.high:+.1f})"
        )
        p = "" if way.against is None else f"{way.against.p:.2g}"
        alphas = ", ".join(f"{alpha:g}" for alpha in way.alphas)
        yield way.name, alphas, spread(patching), against, p, spread(drop), spread(end), spread(drop_at_end)


def cost(way, folder):
    """Train for a few steps; return the CPU milliseconds of a step but the first, which warms up."""
    began, original = [], finetuning.learning_rate

    def noting(*given):
        began.append(time.process_time())
        return original(*given)

    config = TrainConfig(**settings_of("Digits", way).to_json() | {"steps": COST_STEPS})
    with mock.patch.object(finetuning, "learning_rate", noting):
        finetune(config, ModelConfig("demo", ""), Store(folder), folder, fresh=True)
    return 1000 * median(after - before for before, after in pairwise(began[1:]))


def few_steps(clock, folder, way):
    """Return :func:`cost`, in a process of its own."""
    return cost(way, Path(folder))


def show(line):
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", action="append", choices=TASKS)
    parser.add_argument("--way", action="append", choices=list(WAYS))
    parser.add_argument("--rule", default=RULE)
    parser.add_argument("--layers", action="append", choices=("lines", "learned"))
    parser.add_argument("--store", type=Path)
    parser.add_argument("--cost", action="store_true")
    asked = parser.parse_args()
    ways = list(WAYS) if asked.way is None else [PLAIN, *(way for way in asked.way if way != PLAIN)]
    with tempfile.TemporaryDirectory(prefix="wisepatch-benchmark-") as folder:
        if asked.cost:
            show("| way | CPU ms a step of 32 images | MB at most |")
            show("|" + "---|" * 3)
            for way in ways:
                found = measure(few_steps, "fresh", folder=folder, way=way)
                show(f"| {way} | {found.result:.0f} | {found.megabytes:.0f} |")
            return 0
        for task in asked.task or TASKS:
            show(f"\n{task}, {len(SEEDS)} seeds\n")
            show("| way | alphas | task, chosen | against plain (95 %) | p | drop | task, alpha 1 | drop |")
            show("|" + "---|" * 8)
            for row in compare(task, asked.store or Path(folder), ways, asked.rule, asked.layers or ["lines"]):
                show(f"| {' | '.join(row)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
