"""``python -m tests.benchmarks.simulations [promise] [race] [--runs N]``: synthetic sweeps shaped like the published ones.

``promise``: how often the alpha that ``max-drop=0.01@95`` chooses drops by more than a point in the population, beside
``max-drop=0.01``.
``race``: how far what ``--alpha auto`` leaves lies below the best of the grid, and what share of the grid's evaluations it took.
"""  # fmt: skip

import argparse
import sys

import numpy as np
from scipy.stats import binom

from tests.synthetic_sweeps import PAINT, WISE_FT, broken_promises, plateau, population, raced
from wisepatch.analysis.drops import Bound
from wisepatch.analysis.racing import EPSILON
from wisepatch.analysis.selection import parse_rule

POPULATIONS = {"PAINT": population(PAINT), "WiSE-FT": population(WISE_FT)}


def promise(runs):
    """Of ``runs`` sweeps each: the share of broken promises, certified and as measured, and the mean alpha that is certified."""
    people = POPULATIONS | {"all drop by 1.01": plateau(0.0101), "three drop by 1.01": plateau(0.0101, 3)}
    yield ("sweep", "images a task", "certified, broken", "as measured, broken", "mean certified alpha", "at most 5 %")
    for name, each in people.items():
        for bound in (Bound(0.01, 0.95), Bound(0.01, 0.95, each=True)):
            if bound.each and len(each.supported) == 1:
                continue
            for n in (100, 300, 1000, 3000):
                (certified, measured), alpha = broken_promises(each, n, 0.5, bound, runs)
                fits = certified <= binom.ppf(0.999, runs, 0.05)
                shares = [f"{100 * broken / runs:.1f} %" for broken in (certified, measured)]
                yield (f"{name}{', each' if bound.each else ''}", n, *shares, f"{alpha:.2f}", "yes" if fits else "NO")


def race(runs):
    """Of ``runs`` races each: the largest gap to the grid's best, how many gaps exceed epsilon, and the share of evaluations."""
    yield (
        "sweep",
        "rule",
        "length",
        "images a task",
        "largest gap, points",
        "above epsilon",
        "median share",
        "worst share",
    )
    for name, people in POPULATIONS.items():
        for rule in ("best-mean", "max-drop=0.01"):
            for length in (0.5, 1.0):
                for n in (300, 1000, 3000):
                    results = np.array([raced(people, n, length, parse_rule(rule), seed) for seed in range(runs)])
                    gaps, shares = results.T
                    yield (
                        name, rule, length, n, f"{100 * gaps.max():.2f}", f"{(gaps > EPSILON + 1e-9).sum()} of {runs}",
                        f"{100 * np.median(shares):.1f} %", f"{100 * shares.max():.1f} %",
                    )  # fmt: skip


def main(words=None):
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.simulations", description=__doc__)
    parser.add_argument("which", nargs="*", default=["promise", "race"])
    parser.add_argument("--runs", type=int, default=1000)
    given = parser.parse_args(words)
    for which in given.which:
        for number, cells in enumerate({"promise": promise, "race": race}[which](given.runs)):
            sys.stdout.write(
                f"| {' | '.join(map(str, cells))} |\n" + ("|---" * len(cells) + "|\n" if number == 0 else "")
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
