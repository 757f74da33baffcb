"""A1: what writing on an image costs beside reading it."""

from functools import partial
from pathlib import Path
from zlib import crc32

from tests.benchmarks.harness import measure


def read(clock, task, written):
    """Decode all images of a folder, with writing on them or without; returns labels and a checksum of the pixels."""
    from wisepatch import find_task
    from wisepatch.datasets.typography import attacked

    dataset = find_task(str(task)).dataset
    samples = (attacked(dataset) if written else dataset).open("test", Path(), None)
    samples[0]  # fonts are opened once
    with clock:
        images = [samples[index] for index in range(len(samples))]
    return [label for _, label in images], [crc32(image.tobytes()) for image, _ in images]


def attack(bench):
    """A folder of JPEGs, decoded without a model."""
    from tests.benchmarks.material import pictures

    per_class = 6 if bench.quick else 40
    task = bench.folder / "one"
    bench.do(pictures, folder=task, per_class=per_class)
    sides = {
        name: partial(measure, read, task=task, written=written)
        for name, written in (("plain", False), ("attacked", True))
    }
    found = bench.alternate(sides)
    row = bench.row(
        f"{10 * per_class} JPEGs: reference is reading, wisepatch is typo: reading", found["plain"], found["attacked"]
    )
    count = 10 * per_class
    extra = (row.wisepatch_s - row.reference_s) / count * 1e6
    rates = [count / row.reference_s, count / row.wisepatch_s]
    (labels, plain), (same, attacked) = found["plain"][0].result, found["attacked"][0].result
    agree = labels == same and not set(plain) & set(attacked)
    note = f"{rates[0]:.0f} and {rates[1]:.0f} images/s, {extra:+.0f} microseconds an image; labels same, pixels differ"
    yield bench.row(
        row.variant, found["plain"], found["attacked"], agree, None, note, microseconds=extra, images_per_s=rates
    )
