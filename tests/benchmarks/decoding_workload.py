"""D1: what brings a JPEG to the pixels that a model sees, and what would be sooner; D2: an evaluation with pixels kept."""

import shutil
from functools import partial
from pathlib import Path

from tests.benchmarks.harness import measure

SIZE = 224  # pixels of the model


def read(clock, task, how):
    """Bring all images of a folder to a model's pixels; returns them as one array."""
    import torch

    jobs = {"PIL": by_wisepatch, "torchvision": by_torchvision}
    files, job = sorted(Path(task).rglob("*.jpg")), jobs[how](task)
    job(files, 0)
    with clock:
        found = [job(files, index) for index in range(len(files))]
    return torch.stack(found).numpy()


def by_wisepatch(task):
    """As evaluation does."""
    from torchvision import transforms

    from wisepatch.datasets.image_files import FileSamples

    resize = transforms.Resize(SIZE, transforms.InterpolationMode.BICUBIC)
    pixels = transforms.Compose([resize, transforms.CenterCrop(SIZE), transforms.PILToTensor()])
    return lambda files, index: FileSamples([(files[index], 0)], pixels)[0][0]


def by_torchvision(task):
    """Torchvision's decoder, and its resizing of tensors."""
    from torchvision import io as images
    from torchvision.transforms import InterpolationMode, v2

    steps = [v2.Resize(SIZE, InterpolationMode.BICUBIC, antialias=True), v2.CenterCrop(SIZE)]
    transform = v2.Compose(steps)
    return lambda files, index: transform(images.decode_jpeg(images.read_file(str(files[index]))))


def decoding(bench):
    """JPEGs of two sizes by PIL (the reference: open_clip's own pixels) and by torchvision."""
    import numpy as np

    from tests.benchmarks.material import pictures

    for size in ((500, 375), (1600, 1200)):
        per_class = 3 if bench.quick else 20
        task = bench.folder / str(size[0])
        bench.do(pictures, folder=task, per_class=per_class, size=size)
        names = ("PIL", "torchvision")
        found = bench.alternate({name: partial(measure, read, task=task, how=name) for name in names})
        exact = found["PIL"][0].result.astype(int)
        for name in names[1:]:
            off = np.abs(found[name][0].result.astype(int) - exact)
            note = f"pixels differ by {off.mean():.2f} of 255 on average, {off.max()} at most"
            variant = f"{10 * per_class} JPEGs of {size[0]} x {size[1]} to {SIZE} pixels: PIL against {name}"
            yield bench.row(variant, found["PIL"], found[name], None, None, note, mean_difference=float(off.mean()))


def evaluate(clock, folder, task, **settings):
    """An evaluation of the embedded model; returns what it says."""
    from wisepatch import EvalConfig, Store, find_task, predict_many

    store = Store(Path(folder) / "store")
    with clock:
        (predictions,) = predict_many(
            [store.find("zeroshot")], [find_task(str(task))], store, Path(folder), settings=EvalConfig(**settings)
        )
    return predictions.predicted


def evaluate_first(clock, folder, task):
    """The same where no pixels are kept yet."""
    from wisepatch import Store

    shutil.rmtree(Store(Path(folder) / "store").cache.root / "pixels", ignore_errors=True)
    return evaluate(clock, folder, task, cache_images=True)


def cached(bench):
    """One evaluation of the embedded model on large JPEGs: decoding them, decoding and keeping, with pixels kept."""
    from tests.benchmarks.material import line, pictures

    per_class = 2 if bench.quick else 40
    task = bench.folder / "one"
    bench.do(pictures, folder=task, per_class=per_class, size=(1600, 1200))
    bench.do(line, folder=bench.folder, model="demo", tasks=[task])
    shared = {"folder": bench.folder, "task": task}
    found = bench.alternate({
        "decoded": partial(measure, evaluate, **shared),
        "first": partial(measure, evaluate_first, **shared),
        "kept": partial(measure, evaluate, cache_images=True, **shared),
    })  # fmt: skip
    for name, what in (("first", "decoded and kept"), ("kept", "kept by an earlier run")):
        agree = bool((found["decoded"][0].result == found[name][0].result).all())
        variant = f"demo model, {10 * per_class} JPEGs of 1600 x 1200: decoded against {what}"
        yield bench.row(variant, found["decoded"], found[name], agree)
