"""W2: the sweep of a linear classifier, whose tower is the same at every alpha."""

from functools import partial

from tests.benchmarks.harness import measure


def linear(bench):
    """WiSE-FT's sweep over images, and over its own cached features; wisepatch without and with cached features."""
    from tests.benchmarks import sweeping
    from tests.benchmarks.material import line, pictures

    for number, per_class, aim in ((3, 2, 40), (11, 2, 200)) if bench.quick else ((11, 10, 40), (101, 10, 200)):
        folder = bench.folder / str(number)
        tasks = [folder / "one"]
        bench.do(pictures, folder=tasks[0], per_class=per_class)
        bench.do(line, folder=folder, model="ViT-B-32", tasks=tasks, linear=True)
        shared = {"folder": folder, "tasks": tasks, "number": number}
        bench.do(sweeping.reference_sweep, workers=2, freeze_encoder=True, **shared)  # fills its cache
        sides = {
            "reference, cached": partial(measure, sweeping.reference_sweep, workers=2, freeze_encoder=True, **shared),
            "wisepatch, first": partial(measure, sweeping.wisepatch_sweep, forget=True, **shared),
            "wisepatch, again": partial(measure, sweeping.wisepatch_sweep, **shared),
        }
        if number == 11 or bench.quick:  # of 101 alphas a quarter of an hour a round
            sides["reference, images"] = partial(measure, sweeping.reference_sweep, workers=2, **shared)
        found = bench.alternate(sides)
        size = f"{number} alphas, {10 * per_class} images"
        for mine, theirs, hoped in (
            ("wisepatch, again", "reference, cached", aim),
            ("wisepatch, again", "reference, images", None),
            ("wisepatch, first", "reference, images", None),
        ):
            if theirs not in found:
                continue
            differ, total = sweeping.differing(found[theirs][0].result, found[mine][0].result)
            name = {"wisepatch, again": "features cached", "wisepatch, first": "features not cached yet"}[mine]
            beside = {
                "reference, images": "encodes images for every alpha",
                "reference, cached": "has cached features too",
            }[theirs]
            note = f"{differ} of {total} predictions differ; {sweeping.spread(found[mine][0].result)} classes said"
            yield bench.row(f"{size}: {name}, reference {beside}", found[theirs], found[mine], differ == 0, hoped, note,
                            predictions=total, predictions_differ=differ)  # fmt: skip
