"""Small data in the real on-disk formats, made by the tests themselves."""

import json
import struct
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from wisepatch.config import ModelConfig
from wisepatch.datasets.drawn_shapes import SHAPES, Scene, draw, generator
from wisepatch.store.checkpoints import Recipe
from wisepatch.store.recipes import load_weights
from wisepatch.tasks import Task


def draw_folder(root, per_class=6, classes=SHAPES[:3]):
    """A folder of class folders with drawn shapes."""
    for number, shape in enumerate(classes):
        (root / shape).mkdir(parents=True)
        for index in range(per_class):
            draw(Scene("plain", shape, "red"), generator("Shapes", 9, number, index)).save(
                root / shape / f"{index}.png"
            )
    return root


def write_idx(folder, images, labels, kind):
    """MNIST's own file format, uncompressed, as torchvision keeps it."""
    folder.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">IIII", 0x803, len(images), *images.shape[1:])
    (folder / f"{kind}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    (folder / f"{kind}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(labels)) + labels.tobytes())


def write_mnist(data, train=40, test=20, name="MNIST"):
    """A tiny MNIST: image i shows i % 10 white rows."""
    for kind, size in (("train", train), ("t10k", test)):
        labels = (np.arange(size) % 10).astype(np.uint8)
        images = np.zeros((size, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[: int(label) + 1] = 255
        write_idx(data / name / "raw", images, labels, kind)
    return data


def broken_png(path):
    """A file that begins as a PNG and ends too soon."""
    Image.new("RGB", (32, 32), "red").save(path)
    path.write_bytes(path.read_bytes()[:40])


def with_head_of(parent):
    """A task with the head of ``parent``: three classes, of which the second stands for two of its own, the last for none."""
    names = parent.dataset.classes
    halves = replace(
        parent.dataset, name="halves", classes=("a", "b", "c"), head_classes=names, label_map=((0,), (1, 2), ()), metric="top1"
    )  # fmt: skip
    return Task("halves", halves)


def recipes(store, alphas, parents=None, method="linear", **params):
    """A recipe at each alpha between two checkpoints of a store, as a sweep makes them but for its ends."""
    start, end = parents or (store.find("zeroshot"), store.find("finetuned"))
    return [
        store.save(
            None, kind="interpolated", name=f"alpha={alpha}", model=end.model, training=end.training, head=end.head,
            recipe=Recipe(method, (start.id, end.id), {"alpha": alpha, **params}),
        )
        for alpha in alphas
    ]  # fmt: skip


def save_small_vit(store, folder, patch_size):
    """A ViT of random weights with images of four patches, and another one near it, as a training would leave them."""
    import open_clip

    text = {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 2 * patch_size, "patch_size": patch_size, "width": 64, "head_width": 16, "layers": 2}
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    start = open_clip.CLIP(**config).state_dict()
    end = {
        name: tensor + 0.05 * torch.randn(tensor.shape) if name.startswith("visual.") else tensor
        for name, tensor in start.items()
    }
    model = ModelConfig(f"local-dir:{folder}", "").to_json()
    first = store.save(start, kind="zeroshot", name="start", model=model, training="zeroshot")
    store.save(end, kind="finetuned", name="end", model=model, training="paint", trained_from=[first.id])


def random_fishers(store):
    generator, files = torch.Generator().manual_seed(1), []
    for digest in ("aa", "bb"):
        tensors = {
            name: torch.rand(tensor.shape, generator=generator)
            for name, tensor in load_weights(store, store.find("zeroshot")).items() if name.startswith("visual.")
        }  # fmt: skip
        store.cache.tensors("fisher", digest, lambda tensors=tensors: tensors)
        files.append([digest, store.cache.sha256("fisher", digest)])
    return {"fisher": {"files": files}}


class Notes:
    """Progress that keeps all that it is told."""

    def __init__(self):
        self.notes, self.stages, self.steps, self.total, self.bars = [], [], [], 0, []

    def start(self, what, total):
        self.stages.append(what)
        self.total += total
        self.bars.append([total, 0])

    def advance(self, steps=1, detail=""):
        self.steps.append(steps)
        if self.bars:
            self.bars[-1][1] += steps

    def finish(self):
        pass

    def note(self, text):
        self.notes.append(text)


def fails(result, code, message, hint=""):
    """Check a user error: exit code, one line of error, the hint, no traceback, nothing on stdout."""
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("error: ") or "\nerror: " in result.stderr
    assert message in result.stderr
    assert hint in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
