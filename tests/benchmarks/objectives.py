"""``python -m tests.benchmarks.objectives``: ways to fine-tune, compared after mixing, with the embedded model.

``--task NAME`` (repeatable; Digits, FashionMNIST and typo:Shapes without) trains in each way once a seed, chooses alpha by a
certified drop of two points, and prints a row a way, as Markdown. ``--cost`` prints the time of a step and the memory of a training
instead, each in a process of its own. With ``--store DIR`` an interrupted run goes on. FashionMNIST is Debian's package
dataset-fashion-mnist.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev

from wisepatch import ModelConfig, Store, TrainConfig, compare_trainings, finetune

TASKS, SUPPORTED = ("Digits", "FashionMNIST", "typo:Shapes"), ("Shapes", "Textures")
SEEDS, ALPHAS, RULE = (0, 1, 2), "0:1:0.2", "max-drop=0.02@95"
SETTINGS = {"supported": SUPPORTED, "steps": 60, "lr": 5e-4, "batch_size": 32, "limit": 300, "save_every": 0}
PLAIN = "cross-entropy"
WAYS = {
    PLAIN: {},
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
    "LoRA 8": {"lora": 8},
}
COST_STEPS = 20


def settings_of(task, way):
    return TrainConfig.with_defaults(task, **SETTINGS | WAYS[way])


def spread(values, sign=""):
    """Mean and standard deviation over seeds, in per cent."""
    return f"{100 * mean(values):{sign}.1f} ± {100 * stdev(values):.1f}"


def compare(task, folder, ways):
    """Yield the rows of one task."""
    found = compare_trainings(
        {way: settings_of(task, way) for way in ways}, ModelConfig("demo", ""), Store(folder), folder,
        seeds=SEEDS, alphas=ALPHAS, rule=RULE,
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
    """Train for a few steps in this process; return CPU milliseconds a step beyond the first, and the peak of memory in MB."""
    from wisepatch.training import finetuning

    began, original = [], finetuning.learning_rate

    def noting(*given):
        began.append(time.process_time())
        return original(*given)

    finetuning.learning_rate = noting
    config = settings_of("Digits", way)
    config = TrainConfig(**config.to_json() | {"steps": COST_STEPS})
    whole = time.process_time()
    finetune(config, ModelConfig("demo", ""), Store(folder), folder)
    whole = time.process_time() - whole
    step = (began[-1] - began[1]) / (len(began) - 2)
    return {
        "step": 1000 * step,
        "before": began[0] - (time.process_time() - whole),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def show(line):
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", action="append", choices=TASKS)
    parser.add_argument("--way", action="append", choices=list(WAYS))
    parser.add_argument("--store", type=Path)
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--one", choices=list(WAYS), help="the cost of one way, in this process")
    asked = parser.parse_args()
    ways = list(WAYS) if asked.way is None else [PLAIN, *(way for way in asked.way if way != PLAIN)]
    with tempfile.TemporaryDirectory(prefix="wisepatch-benchmark-") as folder:
        if asked.one:
            show(json.dumps(cost(asked.one, Path(folder))))
            return 0
        if asked.cost:
            show("| way | CPU ms a step | peak memory, MB |")
            show("|" + "---|" * 3)
            for way in ways:
                words = [sys.executable, "-m", "tests.benchmarks.objectives", "--one", way]
                told = json.loads(
                    subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
                )
                show(f"| {way} | {told['step']:.0f} | {told['memory']:.0f} |")
            return 0
        for task in asked.task or TASKS:
            show(f"\n{task}, {len(SEEDS)} seeds\n")
            show("| way | alphas | task, chosen | against plain (95 %) | p | drop | task, alpha 1 | drop |")
            show("|" + "---|" * 8)
            for row in compare(task, asked.store or Path(folder), ways):
                show(f"| {' | '.join(row)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
