"""On a GPU: W1 (the alpha sweep, ViT-B/32 and L/14), W3 (a head of 80,000 prompts), W5 (fine-tuning).

Time on a GPU is dear: what a loop repeats is measured on a part of it and scaled, and the row says so. The first use of the
device by a process (its context, its libraries) is no part of the measurement on either side.
"""

import time
from contextlib import ExitStack
from functools import partial
from unittest import mock

from tests.benchmarks.harness import machine, measure

LOOPED = (0.0, 0.5, 1.0)  # the alphas that the papers' loop is measured at; each of eleven takes as long
PER_CLASS = 500
BATCH = 512  # of training
FLOP_OF_B32 = 8.8e9  # forward, an image; backward takes twice as many


def b32(bench):
    """ViT-B/32: both precisions on both sides."""
    yield from sweeps(bench, "ViT-B-32", {"fp32": None, "bf16": 8})


def l14(bench):
    """ViT-L/14 in bf16; the papers' loop in fp32 and in bf16."""
    yield from sweeps(bench, "ViT-L-14", {"bf16": 4})


def sweeps(bench, model, precisions):
    """The papers' loop with a worker a core in fp32 and bf16, and wisepatch in the ``precisions`` that have an aim."""
    from tests.benchmarks import sweeping

    device = bench.do(gpu_name)
    if device is None:
        yield bench.row(model, note="no GPU here")
        return
    number, per_class = (3, 20) if bench.quick else (11, PER_CLASS)
    task, folder = bench.folder / "one", bench.folder / model
    bench.do(many_pictures, folder=task, per_class=per_class)
    bench.do(gpu_line, folder=folder, model=model, tasks=[task])
    shared = {"folder": folder, "tasks": [task]}
    looping = partial(measure, looped, number=number, workers=machine()["cores"], **shared)
    loops = bench.alternate({name: partial(looping, half=name == "bf16") for name in ("fp32", "bf16")}, 1)
    for name, aim in precisions.items():
        job = partial(
            measure, watched_sweep, mixed_precision="bf16" if name == "bf16" else "no", number=number, **shared
        )
        repeats = 3 if model == "ViT-B-32" and name == "bf16" else 1
        found = bench.alternate({f"wisepatch {name}": job}, repeats)[f"wisepatch {name}"]
        said, seen = found[0].result
        rows = [round(alpha * (number - 1)) for alpha in LOOPED]
        same = {key: values[rows] for key, values in said.items()}
        for other in ("fp32", "bf16"):
            differ, total = sweeping.differing(loops[other][0].result, same)
            note = f"{differ} of {total} predictions differ; {shares(seen)}"
            agree = differ <= (0.001 if name == other == "fp32" else 0.05) * total
            yield bench.row(
                f"{model}, {name}, {number} alphas, {10 * per_class} JPEGs; loop in {other}, {len(LOOPED)} alphas, scaled",
                loops[other], found, agree, aim if other == "fp32" else None, note, device=device, predictions=total,
                predictions_differ=differ, **seen,
            )  # fmt: skip


def gpu_name(clock):
    """Return the name of the GPU, or None."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def many_pictures(clock, folder, per_class, split="test"):
    """``pictures``, on every core."""
    from multiprocessing import get_context

    from tests.benchmarks.material import CLASSES, pictures_of_class

    step = max(per_class // 8, 1)
    parts = [
        (folder, number, range(first, min(first + step, per_class)), split)
        for number in range(len(CLASSES))
        for first in range(0, per_class, step)
    ]
    with get_context("fork").Pool(machine()["cores"]) as pool:
        pool.starmap(pictures_of_class, parts)


def gpu_line(clock, folder, model, tasks):
    """``line``, with the features for its head computed on the GPU."""
    from tests.benchmarks.material import line

    line(clock, folder, model, tasks, device="cuda")


def looped(clock, folder, tasks, number, workers, half):
    """The papers' loop at a few alphas; the clock says what ``number`` of them take: the ends are loaded once."""
    import torch

    from tests.benchmarks import reference

    torch.zeros(1, device="cuda")
    began = time.perf_counter()
    for name in ("zeroshot", "finetuned"):
        reference.load(folder / f"{name}.pt")
    loading = time.perf_counter() - began
    with clock:
        said = reference.sweep(
            folder / "zeroshot.pt", folder / "finetuned.pt", [str(task) for task in tasks], LOOPED, folder / "mixes",
            workers=workers, half=half,
        )  # fmt: skip
    clock.wall = loading + (clock.wall - loading) * number / len(LOOPED)
    return said


def watched_sweep(clock, **settings):
    """A sweep of wisepatch, and what the GPU did meanwhile: shares of the time, images a second and mix, memory."""
    import torch

    from tests.benchmarks.sweeping import wisepatch_sweep
    from wisepatch.evaluation import passes
    from wisepatch.evaluation.endpoints import Mix
    from wisepatch.models.clip import Clip
    from wisepatch.models.tower import Tower

    torch.zeros(1, device="cuda")
    spans, waited, first = {}, [0.0], []

    def timed(name, function):
        def run(*args, **kwargs):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            result = function(*args, **kwargs)
            end.record()
            spans.setdefault(name, []).append((start, end))
            return result

        return run

    def waiting(*args, **kwargs):
        first.append(time.perf_counter())
        batches = original(*args, **kwargs)
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            waited[0] += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    original = passes.batches_on
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(passes, "batches_on", waiting))
        for name, owner, method in (
            ("mixing", Mix, "set_weights"), ("forward", Tower, "features"), ("normalising", Clip, "normalise"),
        ):  # fmt: skip
            stack.enter_context(mock.patch.object(owner, method, timed(name, getattr(owner, method))))
        began = time.perf_counter()
        said = wisepatch_sweep(clock, **settings)
    torch.cuda.synchronize()
    seconds = {name: sum(a.elapsed_time(b) for a, b in each) / 1000 for name, each in spans.items()}
    images = next(iter(said.values())).shape[1]
    return said, {
        **{f"{name}_s": round(value, 3) for name, value in seconds.items()},
        "waiting_for_images_s": round(waited[0], 3), "before_first_image_s": round(first[0] - began, 3),
        "gpu_busy": round(sum(seconds.values()) / clock.wall, 3),
        "images_per_second_and_mix": round(images * settings["number"] / clock.wall),
        "gpu_mb": round(torch.cuda.max_memory_allocated() / 2**20),
    }  # fmt: skip


def shares(seen):
    """Say in words what :func:`watched_sweep` saw."""
    return (
        f"GPU busy {seen['gpu_busy']:.0%}: forward {seen['forward_s']} s, mixing {seen['mixing_s']} s; before the first image"
        f" {seen['before_first_image_s']} s, waiting for images {seen['waiting_for_images_s']} s;"
        f" {seen['images_per_second_and_mix']:,} images/s a mix; {seen['gpu_mb']:,} MB"
    )


def head(bench):
    """W3 whole: ImageNet's 1,000 classes x 80 prompts, encoded on the GPU by both sides."""
    from tests.benchmarks.head_workload import TOLERANCE, largest_difference, reference_head, wisepatch_head
    from wisepatch import find_task

    device = bench.do(gpu_name)
    if device is None:
        yield bench.row("ViT-B/32", note="no GPU here")
        return
    dataset = find_task("ImageNet").dataset
    classes = dataset.classes[:: 100 if bench.quick else 1]
    shared = {"model": "ViT-B-32", "classes": classes, "templates": dataset.templates}
    sides = {
        "reference": partial(measure, reference_head, device="cuda", **shared),
        "wisepatch": partial(measure, wisepatch_head, device="cuda", **shared),
    }
    found = bench.alternate(sides, 1)
    off = largest_difference(found["reference"][0].result, found["wisepatch"][0].result)
    variant = f"ViT-B/32, {len(classes)} classes x {len(dataset.templates)} prompts, fp32"
    note = f"rows of unit length differ by at most {off:.1e}"
    agree = off <= 10 * TOLERANCE  # other kernels for other lengths
    yield bench.row(
        variant, found["reference"], found["wisepatch"], agree, 6, note, device=device, largest_difference=off
    )


def training(bench):
    """W5 with batches of 512 JPEGs: seconds a step, the starts of epochs counted, in equal precision and as published."""
    from tests.benchmarks import training_workload
    from tests.benchmarks.material import CLASSES

    device = bench.do(gpu_name)
    if device is None:
        yield bench.row("ViT-B/32", note="no GPU here")
        return
    per_class, steps, batch = (8, 4, 16) if bench.quick else (PER_CLASS, 31, BATCH)
    for split, count in (("train", per_class), ("val", 2), ("test", 2)):
        bench.do(many_pictures, folder=bench.folder / "photos", per_class=count, split=split)
    bench.do(training_workload.save_start, folder=bench.folder, model="ViT-B-32", images="photos")
    shared = {"folder": bench.folder, "steps": steps, "images": "photos", "batch": batch}
    looping = partial(measure, training_workload.reference_steps, workers=machine()["cores"], **shared)
    job = partial(measure, training_workload.wisepatch_steps, mixed_precision="bf16", **shared)
    mine = bench.alternate({"wisepatch": job}, 1)["wisepatch"]
    rate = batch / mine[0].wall
    note = f"a step; {rate:,.0f} images/s, {3 * FLOP_OF_B32 * rate / 1e12:.0f} Tflop/s in the image tower"
    for name in ("bf16", "fp32"):
        loop = bench.alternate({f"loop {name}": partial(looping, half=name == "bf16")}, 1)[f"loop {name}"]
        theirs, loss = training_workload.last_report(loop[0].result), mine[0].result[-1]
        yield bench.row(
            f"bf16: ViT-B/32, batch of {batch}, {per_class * len(CLASSES)} JPEGs; loop in {name}", loop, mine,
            abs(loss - theirs) <= 0.05 * abs(theirs), 1.5 if name == "bf16" else None,
            f"{note}; last loss {theirs:.3f} and {loss:.3f}", device=device, images_per_second=rate,
        )  # fmt: skip
