"""W1, the alpha sweep; W7, the race of alphas; M1, the memory of a sweep."""

from dataclasses import replace
from functools import partial
from statistics import median

from tests.benchmarks.harness import measure

LARGE = (1600, 1200)


def fp32_and_bf16(bench):
    """Two sets of JPEGs, the papers' loop at two worker counts, wisepatch in fp32 and bf16; then the demo model.

    The best worker count of the loop is chosen first, on two alphas. A quick run leaves out the 32 workers of the published loop,
    whose start alone takes minutes on few cores.
    """
    from tests.benchmarks import sweeping
    from tests.benchmarks.material import line, pictures

    number, per_class = (3, 1) if bench.quick else (11, 10)
    tasks = [bench.folder / "one", bench.folder / "two"]
    for seed, task in enumerate(tasks):
        bench.do(pictures, folder=task, per_class=per_class, seed=seed)
    bench.do(line, folder=bench.folder, model="ViT-B-32", tasks=tasks)
    shared = {"folder": bench.folder, "tasks": tasks, "number": number}
    best = quickest(shared | {"number": 2})
    sides = {
        f"reference, {workers} workers": partial(measure, sweeping.reference_sweep, workers=workers, **shared)
        for workers in ((best,) if bench.quick else (best, 32))
    } | {
        f"wisepatch {name}": partial(measure, sweeping.wisepatch_sweep, mixed_precision=precision, **shared)
        for name, precision in (("fp32", "no"), ("bf16", "bf16"))
    }
    found = bench.alternate(sides)
    size = f"ViT-B/32, {number} alphas, 2 x {10 * per_class} JPEGs"
    beside = [(best, found[f"reference, {best} workers"])]
    if not bench.quick:
        beside.append((32, found["reference, 32 workers"]))
    for precision, aims in (("fp32", (2.3, 3)), ("bf16", (4, 5))):
        mine = found[f"wisepatch {precision}"]
        for (workers, reference), aim in zip(beside, aims, strict=False):
            differ, total = sweeping.differing(reference[0].result, mine[0].result)
            drop = sweeping.accuracy(mine[0].result) - sweeping.accuracy(reference[0].result)
            note = f"{differ} of {total} predictions differ, accuracy by {100 * drop:+.2f} points; "
            note += f"{sweeping.spread(mine[0].result)} classes said; reference in fp32 with {workers} workers"
            # bf16 is another precision: as many predictions may differ as rounding makes, and no more than 5 in 100.
            agree = differ == 0 if precision == "fp32" else differ <= 0.05 * total
            how = "best" if workers != 32 else "as published"
            yield bench.row(f"{precision}, reference {how}: {size}", reference, mine, agree, aim, note,
                            predictions=total, predictions_differ=differ, accuracy_difference=drop)  # fmt: skip
    yield from demo(bench)


def quickest(settings):
    """The worker count, none or two, with which the papers' loop takes less time."""
    from tests.benchmarks import sweeping

    return min((0, 2), key=lambda workers: measure(sweeping.reference_sweep, workers=workers, **settings).wall)


def demo(bench):
    """Large JPEGs and the model of 64 pixels: decoding is most of the work."""
    from tests.benchmarks import sweeping
    from tests.benchmarks.material import line, pictures

    folder = bench.folder / "demo"
    number, per_class = (3, 2) if bench.quick else (11, 10)
    tasks = [folder / "one", folder / "two"]
    for seed, task in enumerate(tasks):
        bench.do(pictures, folder=task, per_class=per_class, seed=seed, size=LARGE)
    bench.do(line, folder=folder, model="demo", tasks=tasks)
    shared = {"folder": folder, "tasks": tasks, "number": number}
    workers = quickest(shared | {"number": 2})
    found = bench.alternate(
        {
            "reference": partial(measure, sweeping.reference_sweep, workers=workers, **shared),
            "wisepatch": partial(measure, sweeping.wisepatch_sweep, **shared),
        }
    )
    reference = found["reference"]
    differ, total = sweeping.differing(reference[0].result, found["wisepatch"][0].result)
    note = f"{differ} of {total} predictions differ; reference with {workers} workers"
    size = f"demo model, {number} alphas, 2 x {10 * per_class} JPEGs of {LARGE[0]} x {LARGE[1]}"
    yield bench.row(
        size, reference, found["wisepatch"], differ == 0, 7, note, predictions=total, predictions_differ=differ
    )


def race(bench):
    """``--alpha auto`` beside the grid 0:1:0.01 on the demo tasks: mixes, answers to val, the choice, and answers to test."""
    from tests.benchmarks import sweeping

    bench.do(sweeping.patched_digits, folder=bench.folder, steps=20 if bench.quick else 300)
    grid = "0:1:0.1" if bench.quick else "0:1:0.01"
    shared = {"folder": bench.folder, "rule": "max-drop=0.02"}
    found = bench.alternate(
        {
            "reference": partial(measure, sweeping.chosen_sweep, alphas=grid, **shared),
            "wisepatch": partial(measure, sweeping.chosen_sweep, alphas="auto", **shared),
        }
    )
    (by_grid, best, _), (alpha, value, share) = (found[side][0].result for side in ("reference", "wisepatch"))
    note = f"alpha {by_grid:g} and {alpha:g}, accuracy {100 * best:.1f} and {100 * value:.1f}; {100 * share:.1f} % of evaluations"
    yield bench.row(
        f"demo model, {grid} and auto", found["reference"], found["wisepatch"], value >= best - 0.01, None, note
    )

    yield from race_b32(bench)


def race_b32(bench):
    """The same with ViT-B/32 and pictures; the grid is measured at 11 alphas and scaled to 101 by what the last 8 take."""
    from tests.benchmarks import sweeping
    from tests.benchmarks.material import patched_line, pictures

    folder = bench.folder / "b32"
    tasks = [folder / "inverted", folder / "plain"]
    for seed, task in enumerate(tasks):
        for split, per_class in (("train", 8), ("val", 4 if bench.quick else 20), ("test", 4 if bench.quick else 5)):
            bench.do(
                pictures,
                folder=task,
                per_class=per_class,
                split=split,
                seed=[seed, len(split)],
                inverted=not seed,
                size=(224, 224),
            )
    bench.do(patched_line, folder=folder, model="ViT-B-32", tasks=tasks, steps=4 if bench.quick else 30)
    # With random weights one task is won as the other is lost, at once: a rule by which many alphas are close to the best.
    shared = {"folder": folder, "rule": "weights=inverted:2,plain:1"}
    found = bench.alternate(
        {
            "few": partial(measure, sweeping.chosen_sweep, alphas="0,0.5,1", **shared),
            "reference": partial(measure, sweeping.chosen_sweep, alphas="0:1:0.1", **shared),
            "wisepatch": partial(measure, sweeping.chosen_sweep, alphas="auto", **shared),
        }
    )
    scaled = [
        replace(
            eleven,
            wall=eleven.wall + 90 / 8 * (eleven.wall - three.wall),
            cpu=eleven.cpu + 90 / 8 * (eleven.cpu - three.cpu),
        )
        for three, eleven in zip(found["few"], found["reference"], strict=True)
    ]
    (by_grid, best, _), (alpha, value, share) = (found[side][0].result for side in ("reference", "wisepatch"))
    note = f"the grid scaled from 0:1:0.1; alpha {by_grid:g} and {alpha:g}, accuracy {100 * best:.1f} and {100 * value:.1f}; "
    note += f"{100 * share:.1f} % of evaluations"
    yield bench.row(
        "ViT-B/32, 0:1:0.01 (scaled) and auto", scaled, found["wisepatch"], value >= best - 0.01, None, note
    )


def memory(bench):
    """The peak of one sweep with the demo model, by alphas and images, each in a new process: it must not grow."""
    from tests.benchmarks import sweeping
    from tests.benchmarks.material import line, pictures

    few, many = (4, 16) if bench.quick else (20, 80)
    base = None
    for per_class, numbers in ((few, (3, 11, 101)), (many, (11,))):
        folder = bench.folder / str(per_class)
        tasks = [folder / "one"]
        bench.do(pictures, folder=tasks[0], per_class=per_class)
        bench.do(line, folder=folder, model="demo", tasks=tasks)
        for number in numbers:
            job = partial(measure, sweeping.wisepatch_sweep, "fresh", folder=folder, tasks=tasks, number=number)
            found = bench.alternate({"wisepatch": job})["wisepatch"]
            peak = median(each.megabytes for each in found)
            agree = None if base is None else peak <= 1.03 * base + 10
            base = base or peak
            note = f"peak {peak:.0f} MB, {peak - base:+.0f} MB beside 3 alphas and {10 * few} images"
            variant = f"demo model, {number} alphas, {10 * per_class} images"
            yield bench.row(variant, (), found, agree, None, note)
