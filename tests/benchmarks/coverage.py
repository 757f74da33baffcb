"""``python -m tests.benchmarks.coverage [--draws 2000]``: how often 95 % intervals hold the truth, by simulation.

Each row is a population that is known and drawn from many times; the record stands in ``README.md`` beside this file.
"""

import argparse
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from tests.analysis.test_intervals import population
from tests.analysis.test_metrics import measure_ece
from wisepatch.analysis.intervals import bootstrap, of_mean, of_means, wilson
from wisepatch.analysis.metrics import macro_f1, mean_per_class
from wisepatch.analysis.paired import difference_interval, drop_limit, mean_drop_limit
from wisepatch.analysis.same_images import effective_number

CONFUSIONS = [
    (10, 1, 150),
    (10, 1, 1000),
    (10, 1.5, 300),
    (10, 1.5, 1000),
    (30, 1.1, 300),
    (100, 1.02, 2000),
    (3, 1, 40),
]
GROUPS = [(10,) * 60, (1,) * 150 + (30,) * 15, (100,) * 5 + (1,) * 500]  # sizes of groups of images, such as videos
SHARES = [(0.0, 0.01), (0.005, 0.015), (0.02, 0.03), (0.1, 0.1), (0.3, 0.2)]  # of images that are fixed, and broken


def measure_brier(wrong, rng):
    """Draw the Brier scores of answers between two classes that are wrong with these chances ``(n,)``, and say so."""
    return 2 * np.where(rng.random(len(wrong)) < wrong, 1 - wrong, wrong) ** 2


def rows(draws: int) -> Iterator[tuple[str, Callable[[np.random.Generator], float]]]:
    """Yield what is simulated, and a function that returns the fraction of draws whose interval holds the truth."""
    for statistic, (classes, imbalance, n) in product((macro_f1, mean_per_class), CONFUSIONS):

        def of_counts(rng, statistic=statistic, classes=classes, imbalance=imbalance, n=n):
            chances = population(classes, imbalance, rng)
            truth = float(statistic(chances))
            counts = (rng.multinomial(n, chances.ravel()).reshape(chances.shape) for _ in range(draws))
            return np.mean([low <= truth <= high for low, high in (bootstrap(statistic, each) for each in counts)])

        yield f"{statistic.__name__}, {classes} classes, each {imbalance:g} x rarer, n = {n}", of_counts
    for n, power in product((300, 3000), (1, 1.2, 2)):

        def of_calibration(rng, n=n, power=power):
            many = rng.uniform(0.4, 1, 4_000_000)
            truth = 0.0 if power == 1 else measure_ece(many, many**power, rng).value
            held = 0
            for _ in range(draws):
                confidence = rng.uniform(0.4, 1, n)
                measured = measure_ece(confidence, confidence**power, rng)
                held += measured.low <= truth <= measured.high
            return held / draws

        yield f"ece, right with confidence ** {power:g}, n = {n}", of_calibration

    for n, right in product((100, 500, 2000), (0.6, 0.9, 0.99)):

        def of_brier(rng, n=n, right=right):
            truth = measure_brier(rng.uniform(0, 2 * (1 - right), 4_000_000), rng).mean()
            scores = (measure_brier(rng.uniform(0, 2 * (1 - right), n), rng) for _ in range(draws))
            return np.mean([low <= truth <= high for low, high in (of_mean(each, 0, 2) for each in scores)])

        yield f"Brier score, {right:.0%} of the answers right, n = {n}", of_brier

    def of_tasks(rng):
        sizes, truths = [50, 200, 1000], [0.98, 0.9, 0.6]
        held = 0
        for _ in range(draws):
            values = [rng.binomial(n, truth) / n for n, truth in zip(sizes, truths, strict=True)]
            lows, highs = zip(*(wilson(value, n) for value, n in zip(values, sizes, strict=True)), strict=True)
            low, high = of_means(values, lows, highs)
            held += low <= np.mean(truths) <= high
        return held / draws

    yield "mean accuracy over three tasks, n = 50, 200, 1000", of_tasks
    for sizes, alike, (won, lost), as_one in product(GROUPS, (0, 0.4, 1), SHARES[2:], (True, False)):

        def of_groups(rng, sizes=sizes, alike=alike, won=won, lost=lost, as_one=as_one):
            group = np.repeat(np.arange(len(sizes)), sizes)
            n, held = len(group), 0
            independent = effective_number(group.tolist()) if as_one else n
            for _ in range(draws):
                heights = np.where(rng.random(n) < alike, rng.random(len(sizes))[group], rng.random(n))
                fixed, broken = (heights < won).sum(), (heights > 1 - lost).sum()
                held += drop_limit(fixed * independent / n, broken * independent / n, independent) >= lost - won
            return held / draws

        words = f"{len(sizes)} groups, {sum(sizes)} images, {alike:.0%} of each alike, {'as one' if as_one else 'as independent'}"
        yield f"upper limit of the drop, {won:.1%} fixed and {lost:.1%} broken, {words}", of_groups
    for n, (won, lost) in product((100, 300, 3000), SHARES):

        def of_pairs(rng, n=n, won=won, lost=lost):
            fixed, broken, _ = rng.multinomial(n, [won, lost, 1 - won - lost], 20 * draws).T
            low, high = difference_interval(fixed, broken, n)
            return np.mean((low <= won - lost) & (won - lost <= high))

        def of_drops(rng, n=n, won=won, lost=lost):
            fixed, broken, _ = rng.multinomial(n, [won, lost, 1 - won - lost], 20 * draws).T
            return np.mean(drop_limit(fixed, broken, n) >= lost - won)

        def of_mean_drops(rng, n=n, won=won, lost=lost):
            fixed, broken, _ = np.moveaxis(rng.multinomial(n, [won, lost, 1 - won - lost], (20 * draws, 3)), -1, 0)
            return np.mean(mean_drop_limit(fixed, broken, n) >= lost - won)

        def of_alike(rng, n=n, won=won, lost=lost):
            fixed, broken, _ = rng.multinomial(n, [won, lost, 1 - won - lost], 20 * draws).T
            alike = [np.stack([kind, kind], -1) for kind in (fixed, broken)]
            return np.mean(mean_drop_limit(*alike, n, tasks=("A", "corrupt:A")) >= lost - won - 1e-12)

        shares = f"{won:.1%} fixed and {lost:.1%} broken, n = {n}"
        yield f"paired difference, {shares}", of_pairs
        yield f"upper limit of the drop, {shares}", of_drops
        yield f"upper limit of the mean drop of three tasks, {shares}", of_mean_drops
        yield (
            f"upper limit of the mean drop of two tasks that show the same images and break the same, {shares}",
            of_alike,
        )


def main() -> None:
    """Print a row each, with the standard error of its simulation."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--only", default="", help="rows that these words are in")
    given = parser.parse_args()
    for words, coverage in ((words, coverage) for words, coverage in rows(given.draws) if given.only in words):
        print(f"{coverage(np.random.default_rng(0)):7.1%}  {words}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
