"""W3: the zero-shot head from class names and prompts."""

from functools import partial

from tests.benchmarks.harness import measure

TOLERANCE = 1e-5


def reference_head(clock, model, classes, templates, device="cpu"):
    from tests.benchmarks import reference
    from tests.benchmarks.material import random_encoder
    from wisepatch.datasets.prompts import prompts

    clip = random_encoder(model)
    clip.model.to(device)
    with clock:
        head = reference.zeroshot_head(
            clip.model, clip.tokenizer, classes, templates, lambda template, name: prompts(name, [template])[0]
        )
    return head.cpu().numpy()


def wisepatch_head(clock, model, classes, templates, device="cpu"):
    import torch

    from tests.benchmarks.material import random_encoder
    from wisepatch import zeroshot_head

    clip = random_encoder(model)
    torch.zeros(1, device=device)  # the first use of a device takes its time
    with clock:
        head = zeroshot_head(clip, classes, templates)
    return head.numpy()


def largest_difference(one, other):
    """Between two heads, as a share of the length of a row, which is ``exp(logit_scale)``."""
    import numpy as np

    return float(np.abs(one - other).max() / np.linalg.norm(one, axis=1).mean())


def head(bench):
    """A fraction of ImageNet's classes, evenly spaced, with all 80 prompts."""
    from wisepatch import find_task

    dataset = find_task("ImageNet").dataset
    count = 2 if bench.quick else 25
    classes = dataset.classes[:: len(dataset.classes) // count][:count]
    shared = {"model": "ViT-B-32", "classes": classes, "templates": dataset.templates}
    sides = {"reference": partial(measure, reference_head, **shared)}
    found = bench.alternate(sides | {"wisepatch": partial(measure, wisepatch_head, **shared)})
    off = largest_difference(found["reference"][0].result, found["wisepatch"][0].result)
    variant = f"ViT-B/32, {count} of {len(dataset.classes)} classes x {len(dataset.templates)} prompts"
    note = f"rows of unit length differ by at most {off:.1e}"
    yield bench.row(variant, found["reference"], found["wisepatch"], off <= TOLERANCE, 6, note, largest_difference=off)
