"""A1: what writing on an image costs beside reading it."""

from functools import partial
from itertools import product
from pathlib import Path
from zlib import crc32

from tests.benchmarks.harness import measure

EPOCHS = 4  # after which most words have been drawn in most sizes


def read(clock, task, written, model, before=0):
    """Decode all images of a folder, with writing on them or without, also for a model; returns labels and checksums of pixels.

    ``before`` epochs are read first, each with writing of its own: the clock runs in the next one.
    """
    from wisepatch import find_task
    from wisepatch.datasets.samples import set_epoch
    from wisepatch.datasets.typography import attacked

    dataset = find_task(str(task)).dataset
    samples = (attacked(dataset) if written else dataset).open("test", Path(), preprocessing() if model else None)
    for index in range(0, len(samples), 4):
        samples[index]  # what is opened once, as fonts are
    for epoch in range(before):
        set_epoch(samples, epoch)
        for index in range(len(samples)):
            samples[index]
    set_epoch(samples, before)
    with clock:
        for index in range(len(samples)):
            samples[index]  # and forgotten: what is kept has to be paid for
    kept = [samples[index] for index in range(0, len(samples), 4)]
    return [label for _, label in kept], [crc32(pixels(image)) for image, _ in kept]


def preprocessing():
    """open_clip's transform of evaluation at 224 pixels."""
    from open_clip.transform import image_transform

    return image_transform(224, is_train=False)


def pixels(image):
    """The bytes of a PIL image or a tensor."""
    return image.numpy().tobytes() if hasattr(image, "numpy") else image.tobytes()


def attack(bench):
    """A folder of JPEGs, decoded alone, and decoded and brought to a model's size, with writing and without."""
    from tests.benchmarks.material import pictures

    per_class = 6 if bench.quick else 100
    task, count = bench.folder / "one", 10 * per_class
    bench.do(pictures, folder=task, per_class=per_class)
    for model, before in product((False, True), (0, EPOCHS)):
        sides = {
            "plain": partial(measure, read, task=task, written=False, model=model),
            "attacked": partial(measure, read, task=task, written=True, model=model, before=before),
        }
        found = bench.alternate(sides)
        when = f"after {before} epochs" if before else "in the first epoch"
        variant = f"{count} JPEGs, {'decoded for a model' if model else 'decoded'}; with and without writing, {when}"
        row = bench.row(variant, found["plain"], found["attacked"])
        extra = (row.wisepatch_s - row.reference_s) / count * 1e6
        rates = [count / row.reference_s, count / row.wisepatch_s]
        (labels, plain), (same, attacked) = found["plain"][0].result, found["attacked"][0].result
        agree = labels == same and not set(plain) & set(attacked)
        note = f"{rates[0]:.0f} and {rates[1]:.0f} images/s, {extra:+.0f} microseconds an image; labels same, pixels differ"
        yield bench.row(
            variant, found["plain"], found["attacked"], agree, None, note, microseconds=extra, images_per_s=rates
        )
