"""A tiny CLIP in double precision, a task of three classes, a batch, and finite differences."""

import math
from types import SimpleNamespace

import open_clip
import torch

from tests.tiny_clips import tiny_clip
from wisepatch import Classifier, Dataset, ModelConfig, Task, TrainConfig, TrainingBatch, TrainingStart
from wisepatch.models.clip import Clip
from wisepatch.models.two_towers import TwoTowers
from wisepatch.models.zeroshot_head import zeroshot_head
from wisepatch.plugins import find_objective
from wisepatch.training.objectives.start import objective_params

NAMES = ("cat", "dog", "bird")
TEMPLATES = ("a photo of a {}.", "a drawing of the {}.", "one {}")
OTHERS = Task("more", Dataset("more", ("tree", "cat"), open=None, templates=("a {}.",)))


def moved(model, amount=0.05, seed=5):
    """Move every parameter a little, as training does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in model.parameters():
            each.add_(amount * torch.randn(each.shape, generator=generator, dtype=each.dtype))


def prepared(name, *params, images=5, seed=0, **settings):
    """An objective as a training prepares it, then moved away from the start: the loss, the model, its start, and a batch."""
    model = tiny_clip(seed=seed).double()
    moved(model)  # a class embedding of zeros would stay there
    clip = Clip(ModelConfig("tiny", ""), model, None, None, open_clip.get_tokenizer("ViT-B-32"))
    task = Task("pets", Dataset("pets", NAMES, open=None, templates=TEMPLATES))
    objective = find_objective(name)
    head = objective.head or "frozen"
    config = TrainConfig("pets", objective=name, objective_param=params, **{"head": head, "seed": seed} | settings)
    head_of_start = zeroshot_head(clip, NAMES, TEMPLATES).double()
    classifier = Classifier(model.visual, head_of_start, torch.zeros(3, dtype=torch.float64))
    drawn = torch.Generator().manual_seed(seed)
    fixed = SimpleNamespace(
        features=torch.nn.functional.normalize(torch.randn(20, 16, generator=drawn, dtype=torch.float64), dim=-1),
        labels=torch.arange(20) % 3,
    )
    start = TrainingStart(
        clip,
        classifier,
        task,
        config,
        objective_params(config),
        torch.device("cpu"),
        (OTHERS,),
        fixed_features=lambda: fixed,
    )
    loss = objective.prepare(start)
    trained = TwoTowers(clip, classifier) if objective.trains_text else classifier
    trained.weight.requires_grad_(config.head == "trained")
    trained.bias.requires_grad_(config.head == "trained")
    moved(trained.visual, seed=6)
    pictures = torch.randn(images, 3, 16, 16, generator=drawn, dtype=torch.float64)
    return loss, trained, start, TrainingBatch(pictures, torch.arange(images) % 3, 1.0, 7)


def check_gradient(loss, model, batch, step=1e-5):
    """Hold the gradient, along a random direction in the space of all trained parameters, against a central difference."""
    trained = [each for each in model.parameters() if each.requires_grad]
    model.zero_grad()
    loss(model, batch).backward()
    generator = torch.Generator().manual_seed(3)
    directions = [torch.randn(each.shape, generator=generator, dtype=each.dtype) for each in trained]
    slope = sum(
        float((each.grad * way).sum()) for each, way in zip(trained, directions, strict=True) if each.grad is not None
    )
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            for each, way in zip(trained, directions, strict=True):
                each.add_(sign * step * way)
            values.append(float(loss(model, batch)))
        for each, way in zip(trained, directions, strict=True):
            each.add_(step * way)
    assert abs(slope) > 1e-3
    assert math.isclose(slope, (values[0] - values[1]) / (2 * step), rel_tol=1e-5), (slope, values)


def value(loss):
    return loss.detach().item()


def rows(tensor):
    return tensor.detach().tolist()


def cosines(features, texts):
    """The products of features and texts, one by one."""
    return [[sum(a * b for a, b in zip(one, other, strict=True)) for other in rows(texts)] for one in rows(features)]


def softmax(values, temperature=1.0):
    exponentials = [math.exp(value / temperature) for value in values]
    return [each / sum(exponentials) for each in exponentials]


def cross_entropy(logits, labels):
    return -sum(math.log(softmax(row)[label]) for row, label in zip(logits, labels, strict=True)) / len(labels)


def kl(before, now):
    return sum(p * math.log(p / q) for p, q in zip(before, now, strict=True))
