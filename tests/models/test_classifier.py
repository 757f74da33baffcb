"""An image tower with a head behind it."""

import torch

from wisepatch.config import ModelConfig
from wisepatch.models.classifier import Classifier, features, logits
from wisepatch.models.clip import load_clip


def test_classifier_is_cosine_similarity_times_scale():
    visual, head = load_clip(ModelConfig("demo", "")).model.visual, 10 * torch.randn(3, 128)
    classifier = Classifier(visual, head)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        unit = torch.nn.functional.normalize(visual(images), dim=-1)
        assert torch.allclose(classifier(images), unit @ head.T, atol=1e-5)
        assert torch.allclose(classifier(unit), unit @ head.T, atol=1e-5)


def test_bias_is_added_and_is_zero_unless_given():
    weight, bias, images = torch.randn(3, 12), torch.randn(3), torch.randn(2, 3, 2, 2)
    plain, shifted = Classifier(torch.nn.Flatten(), weight), Classifier(torch.nn.Flatten(), weight, bias)
    assert torch.equal(plain.bias, torch.zeros(3))
    assert torch.allclose(shifted(images), plain(images) + bias)
    assert torch.equal(shifted(images), logits(shifted.visual, images, weight, bias))


def test_head_is_a_copy_that_can_be_trained():
    weight = torch.randn(3, 12)
    classifier = Classifier(torch.nn.Flatten(), weight)
    classifier.weight.data.zero_()
    assert weight.abs().sum() > 0
    assert {name for name, parameter in classifier.named_parameters() if parameter.requires_grad} == {"weight", "bias"}


def test_features_are_of_unit_length_and_in_fp32_of_half_precision_and_of_towers_that_return_tokens_too():
    images = torch.randn(4, 3, 2, 2)

    def tower(x):
        return x.flatten(1).bfloat16(), x

    assert features(tower, images).dtype == torch.float32
    assert torch.allclose(features(tower, images).norm(dim=1), torch.ones(4))
    assert features(torch.nn.Flatten(), images.double()).dtype == torch.float64
