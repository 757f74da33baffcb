"""What is measured with: folders of JPEGs, models with random weights, a store with a finished run, the same run as modules."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from tests.benchmarks import reference
from wisepatch import ModelConfig, Store, TrainConfig, find_task, load_clip

CLASSES = ("bog", "cliff", "dune", "forest", "lake", "meadow", "ocean", "river", "tundra", "valley")
PHOTO = (500, 375)


def pictures(clock, folder, per_class, size=PHOTO, split="test", seed=0, inverted=False):
    """A folder of smooth random pictures with a little grain: JPEGs of quality 90; finer and other colours by class."""
    for number in range(len(CLASSES)):
        pictures_of_class(folder, number, range(per_class), split, size, seed, inverted)


def pictures_of_class(folder, number, indices, split="test", size=PHOTO, seed=0, inverted=False):
    """Those of one class that have the ``indices``."""
    home = Path(folder) / split / CLASSES[number]
    home.mkdir(parents=True, exist_ok=True)
    for index in indices:
        image = picture(np.random.default_rng([seed, number, index]), number, size)
        (ImageOps.invert(image) if inverted else image).save(home / f"{index:05}.jpg", quality=90)


def picture(rng, number, size):
    """One of them."""
    grid = 3 + 3 * number
    tint = np.random.default_rng(number).uniform(40, 215, 3)
    coarse = np.clip(tint + rng.normal(0, 45, (grid, grid, 3)), 0, 255).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    return Image.fromarray(np.clip(smooth + rng.normal(0, 7, smooth.shape[:2])[..., None], 0, 255).astype(np.uint8))


def random_encoder(model):
    """``demo`` as it is, or another model with random weights: the time is that of the published ones."""
    if model == "demo":
        return load_clip(ModelConfig("demo", ""))
    import open_clip

    torch.manual_seed(0)
    weights = open_clip.create_model(model, pretrained=None, load_weights=False).state_dict()
    return load_clip(ModelConfig(model, "openai"), weights)


def line(clock, folder, model, tasks, linear=False, device="cpu"):
    """A finished run on ``tasks`` (the first is the patching task), as a store and as the papers' two pickled modules.

    Its head is trained (WiSE-FT): nearest class means of features, so that what is said differs from image to image. The other
    end is the first with a little noise, in the head alone if ``linear``.
    """
    folder = Path(folder)
    clip = random_encoder(model)
    first = find_task(str(tasks[0]))
    means, centre, scale = class_means(clip, first, device)
    weight = (means - centre) / scale
    start = {"classifier.weight": weight, "classifier.bias": -(weight * (means + centre) / 2).sum(1)}
    start |= {name: tensor.clone() for name, tensor in clip.model.state_dict().items()}
    torch.manual_seed(1)
    end = {name: tensor.clone() for name, tensor in start.items()}
    for name in end:
        if name.startswith("classifier.") if linear else name.startswith(("visual.", "classifier.")):
            noise = 1.0 if name.startswith("classifier.") else 0.05
            if end[name].is_floating_point() and end[name].numel() > 1:
                end[name] += torch.randn_like(end[name]) * end[name].std() * noise
    store, config = Store(folder / "store"), clip.config.to_json()
    head = {"task": first.name, "classes": list(first.dataset.head_names)}
    zeroshot = store.save(start, kind="zeroshot", name="line/zeroshot", model=config, training="zeroshot", head=head)
    settings = TrainConfig.with_defaults(
        first.base_spec, head="trained", freeze_encoder=linear, supported=tuple(str(task) for task in tasks[1:])
    )
    store.save(
        end, kind="finetuned", name="line/finetuned", model=config, trained_from=[zeroshot.id], training=settings.training,
        config=settings.to_json(), head=head,
    )  # fmt: skip
    for name, weights in (("zeroshot", start), ("finetuned", end)):
        reference.save(as_module(clip.config, weights, folder / "cache"), folder / f"{name}.pt")


def patched_line(clock, folder, model, tasks, steps):
    """A run that patches: ``tasks`` are the same classes, the first in inverted colours, which the start gets wrong.

    The head of the start, nearest class means of the second task, stays what it is (PAINT); the image encoder is trained on the
    first task's pictures of ``train``, so that the second is forgotten in part.
    """
    folder = Path(folder)
    clip = random_encoder(model)
    first, second = (find_task(str(task)) for task in tasks)
    means, centre, scale = class_means(clip, second, "cpu")
    weight = (means - centre) / scale
    bias = -(weight * (means + centre) / 2).sum(1)
    store, config = Store(folder / "store"), clip.config.to_json()
    head = {"task": first.name, "classes": list(first.dataset.head_names)}
    head_tensors = {"classifier.weight": weight, "classifier.bias": bias}
    start = {name: tensor.clone() for name, tensor in clip.model.state_dict().items()} | head_tensors
    zeroshot = store.save(start, kind="zeroshot", name="line/zeroshot", model=config, training="zeroshot", head=head)
    samples = first.dataset.open("train", Path(), clip.transform)
    optimizer = torch.optim.AdamW(clip.model.visual.parameters(), lr=2e-5)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        images, labels = zip(
            *(samples[int(index)] for index in torch.randint(len(samples), (16,), generator=draw)), strict=True
        )
        features = torch.nn.functional.normalize(clip.model.visual(torch.stack(images)), dim=-1)
        torch.nn.functional.cross_entropy(features @ weight.T + bias, torch.tensor(labels)).backward()
        optimizer.step()
        optimizer.zero_grad()
    end = {name: tensor.clone() for name, tensor in clip.model.state_dict().items()} | head_tensors
    settings = TrainConfig.with_defaults(first.base_spec, head="trained", supported=(str(tasks[1]),))
    store.save(
        end, kind="finetuned", name="line/finetuned", model=config, trained_from=[zeroshot.id], training=settings.training,
        config=settings.to_json(), head=head,
    )  # fmt: skip


def as_module(config, weights, cache):
    """The papers' classifier with these weights."""
    clip = load_clip(config, weights)
    image_encoder = reference.ImageEncoder(clip.model, clip.transform)
    image_encoder.cache_dir = str(cache)
    head = reference.ClassificationHead(weights["classifier.weight"], weights["classifier.bias"])
    return reference.ImageClassifier(image_encoder, head)


@torch.inference_mode()
def class_means(clip, task, device, most=6):
    """Mean features of each class, their mean, and the mean squared spread of features about it."""
    samples = task.dataset.open("test", Path(), clip.transform)
    found, visual = {}, clip.model.visual.to(device)
    for index, label in enumerate(samples.labels):
        if len(found.setdefault(label, [])) < most:
            feature = visual(samples[index][0][None].to(device)).cpu()
            found[label].append(torch.nn.functional.normalize(feature, dim=-1))
    visual.cpu()
    means = torch.cat([torch.cat(found[label]).mean(0, keepdim=True) for label in sorted(found)])
    centre = means.mean(0, keepdim=True)
    return means.clone(), centre.clone(), float((means - centre).square().sum(1).mean())
