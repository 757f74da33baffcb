"""``python -m tests.benchmarks [W1 W2 ...] [--quick] [--json]``, from the root of the repository."""

import argparse
import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from tests.benchmarks.harness import Bench, machine, report, table

WORKLOADS = {
    "W1": ("sweep_workloads.fp32_and_bf16", "alpha sweep, ViT-B/32, two sets of JPEGs; with the demo model too"),
    "W2": ("linear_workload.linear", "alpha sweep of a linear classifier"),
    "W3": ("head_workload.head", "zero-shot head of ImageNet's classes and 80 prompts"),
    "W4": ("merge_workload.merge", "merge from disk to disk, ViT-L/14"),
    "W5": ("training_workload.step", "fine-tuning step, ViT-B/32"),
    "W6": ("startup_workload.startup", "start-up of the command line"),
    "W7": ("sweep_workloads.race", "--alpha auto against the grid of 101 alphas"),
    "W8": ("several_workload.b32", "merge of a start and several ends from disk to disk, and measured, ViT-B/32"),
    "W8-L": ("several_workload.l14", "the same with ViT-L/14"),
    "A1": ("attack_workload.attack", "images a second with and without the typographic attack"),
    "D1": ("decoding_workload.decoding", "JPEGs to a model's pixels: PIL, torchvision"),
    "D2": ("decoding_workload.cached", "evaluation with pixels that an earlier run has kept"),
    "M1": ("sweep_workloads.memory", "memory of a sweep at 3, 11 and 101 alphas, and with four times the images"),
    "W1-GPU": ("gpu_workloads.b32", "alpha sweep on a GPU, ViT-B/32, 5,000 images"),
    "W1-GPU-L": ("gpu_workloads.l14", "the same with ViT-L/14"),
    "W3-GPU": ("gpu_workloads.head", "zero-shot head on a GPU, 1,000 classes and 80 prompts"),
    "W5-GPU": ("gpu_workloads.training", "fine-tuning on a GPU, ViT-B/32, batches of 512"),
}


def main(words: list[str] | None = None) -> int:
    listing = "\n".join(f"  {name:7} {about}" for name, (_, about) in WORKLOADS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure wisepatch beside a reference loop written after the papers' code, alternating in one run.",
        epilog=f"workloads (all, if none is named):\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workload", nargs="*", help="such as W1 W4", metavar="WORKLOAD")
    parser.add_argument("--quick", action="store_true", help="about a minute a workload, small: to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON object a row on stdout")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each side (3, and never fewer)")
    given = parser.parse_args(words)
    names = [name.upper() for name in given.workload] or list(WORKLOADS)
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        parser.error(f"no workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    # Neither side may fetch anything, find other plugins, or use a store that lies about.
    os.environ |= {"WISEPATCH_PLUGINS": "0", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    here, rows, failed = machine(), [], False
    for name in names:
        with tempfile.TemporaryDirectory(prefix="wisepatch-benchmark-") as folder:
            bench = Bench(name, Path(folder), given.quick, max(given.repeats, 3), here)
            module, _, function = WORKLOADS[name][0].partition(".")
            try:
                for row in getattr(import_module(f"tests.benchmarks.{module}"), function)(bench):
                    rows.append(row)
                    failed |= row.agree is False
                    if given.json:
                        report(row, here)
            except Exception as error:  # noqa: BLE001 -- one workload that cannot run does not take the others along
                sys.stderr.write(f"{name} failed: {error}\n")
                failed = True
    if not given.json:
        table(rows, here, quick=given.quick)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
