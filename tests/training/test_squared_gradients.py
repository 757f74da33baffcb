"""Squared gradients of many images at once, against WiSE-FT's loop over single ones."""

import open_clip
import pytest
import torch

from tests.samples import Notes
from wisepatch import ModelConfig
from wisepatch.models.classifier import Classifier
from wisepatch.models.clip import load_clip
from wisepatch.training import squared_gradients
from wisepatch.training.squared_gradients import batch_that_fits, diagonal


class Images:
    """Random images of one size."""

    def __init__(self, count, size=64):
        self.images = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], 0


def uniforms(count, seed=1):
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def by_hand(classifier, samples, numbers):
    """WiSE-FT's loop: one image, one label drawn from the prediction, one backward pass."""
    classifier.eval().requires_grad_(True)
    sums = {name: torch.zeros_like(p) for name, p in classifier.named_parameters()}
    labels = []
    for index in range(len(samples)):
        logits = classifier(samples[index][0][None])
        shares = logits.detach().softmax(1)[0].cumsum(0)
        label = min(int(torch.searchsorted(shares, numbers[index], right=True)), len(shares) - 1)
        labels.append(label)
        classifier.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.tensor([label])).backward()
        for name, parameter in classifier.named_parameters():
            sums[name] += parameter.grad**2
    return {name: total / len(samples) for name, total in sums.items()}, labels


def towers():
    def batch_norm():
        tower = open_clip.modified_resnet.ModifiedResNet((1, 1, 1, 1), output_dim=8, heads=2, image_size=64, width=8)
        for module in tower.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        return tower

    return {
        "group norm": lambda: load_clip(ModelConfig("demo", "")).model.visual,
        "transformer": lambda: open_clip.transformer.VisionTransformer(
            image_size=64, patch_size=16, width=32, layers=2, heads=2, mlp_ratio=2, output_dim=8
        ),
        "batch norm": batch_norm,
    }


def classifier_of(tower, classes=5):
    torch.manual_seed(0)
    visual = towers()[tower]().eval()
    width = visual(torch.zeros(1, 3, 64, 64)).shape[1]
    return Classifier(visual, torch.randn(classes, width))


def all_close(one, other):
    return one.keys() == other.keys() and all(
        torch.allclose(one[name], other[name], rtol=1e-3, atol=1e-5 * float(other[name].max()) + 1e-12) for name in one
    )


@pytest.mark.parametrize("tower", ["group norm", "transformer", "batch norm"])
def test_batches_give_what_the_loop_over_single_images_gives(tower):
    classifier, samples, numbers = classifier_of(tower), Images(7), uniforms(7)
    expected, labels = by_hand(classifier, samples, numbers)
    assert len(set(labels)) > 1
    buffers = {name: buffer.clone() for name, buffer in classifier.named_buffers()}
    notes = Notes()
    found = diagonal(classifier, list(expected), samples, numbers, batch_size=4, progress=notes)
    assert not notes.notes  # no operation of these towers is done one image at a time
    assert all_close(found, expected)
    assert all_close(diagonal(classifier, list(expected), samples, numbers, batch_size=1), expected)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in classifier.named_buffers())
    some = [name for name in expected if name.startswith("visual.")][:2]
    assert list(diagonal(classifier, some, samples, numbers, batch_size=4)) == some


def test_what_cannot_be_batched_goes_one_by_one_and_says_so():
    class Asks(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(12, 4)

        def forward(self, images):
            flat = images.flatten(1)
            return self.inner(flat if flat.sum().item() > 0 else 2 * flat)

    torch.manual_seed(0)
    classifier, samples, numbers = Classifier(Asks(), torch.randn(3, 4)), Images(5, 2), uniforms(5)
    expected, _ = by_hand(classifier, samples, numbers)
    notes = Notes()
    assert all_close(diagonal(classifier, list(expected), samples, numbers, batch_size=3, progress=notes), expected)
    assert [text.partition(",")[0] for text in notes.notes] == ["the images go through the model one at a time"]


def test_batches_that_do_not_fit_are_halved(monkeypatch):
    classifier, samples, numbers = classifier_of("transformer"), Images(7), uniforms(7)
    names = [name for name, _ in classifier.named_parameters()]
    expected, sizes, original = (
        diagonal(classifier, names, samples, numbers, batch_size=7),
        [],
        squared_gradients.batched,
    )

    def small(nll, parameters, images, some):
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("too large")
        return original(nll, parameters, images, some)

    monkeypatch.setattr(squared_gradients, "batched", small)
    assert all_close(diagonal(classifier, names, samples, numbers, batch_size=7), expected)
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]


def test_large_models_take_one_image_at_a_time_on_a_cpu():
    sizes = {"small": 100_000, "middle": 10_000_000, "large": 88_000_000}
    with torch.device("meta"):
        fit = {name: batch_that_fits({"w": torch.empty(size)}, torch.device("cpu")) for name, size in sizes.items()}
    assert fit == {"small": 64, "middle": 35, "large": 1}


def test_labels_are_drawn_from_what_the_model_predicts():
    """A linear model on one image: a bias has the information ``p (1 - p)``, a weight that times its feature squared."""
    classifier = Classifier(torch.nn.Flatten(), torch.tensor([[2.0, 0.5], [1.0, -1.0], [0.0, 0.0]]))

    class Same(Images):
        def __getitem__(self, index):
            return torch.tensor([[[0.6]], [[0.8]]]), 0

    found = diagonal(classifier, ["weight", "bias"], Same(4000), uniforms(4000), batch_size=500)
    p = (classifier.weight.detach() @ torch.tensor([0.6, 0.8])).softmax(0)
    assert torch.allclose(found["bias"], p * (1 - p), rtol=0.05)
    assert torch.allclose(found["weight"], (p * (1 - p))[:, None] * torch.tensor([0.36, 0.64]), rtol=0.05)
