"""Objectives of labels alone, against slow transcriptions of their equations."""

import pytest
import torch

from tests.training.objectives.tiny import cosines, cross_entropy, prepared, rows, value


def logits(model, batch):
    with torch.no_grad():
        return rows(model(batch.images))


def test_cross_entropy_is_the_mean_negative_log_probability_weighed_as_the_batch():
    loss, model, _, batch = prepared("cross-entropy")
    expected = cross_entropy(logits(model, batch), batch.labels.tolist())
    assert value(loss(model, batch)) == pytest.approx(expected)
    assert value(loss(model, batch._replace(weight=0.4))) == pytest.approx(0.4 * expected)


@pytest.mark.parametrize(("given", "weight"), [((), 0.1), (("weight=3",), 3.0)])
def test_l2_sp_adds_half_the_weighed_square_of_the_way_from_the_start(given, weight):
    loss, model, _, batch = prepared("l2-sp", *given)
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    with torch.no_grad():
        model.visual.conv1.weight += 0.5
    way = 0.0
    _, begun, _, _ = prepared("l2-sp")  # the same start, moved in the same way
    for name, parameter in begun.named_parameters():
        assert torch.equal(parameter, before[name])
    origin = origin_of(begun)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            way += sum(
                (a - b) ** 2 for a, b in zip(parameter.flatten().tolist(), origin[name].flatten().tolist(), strict=True)
            )
    expected = cross_entropy(logits(model, batch), batch.labels.tolist()) + weight / 2 * way
    assert value(loss(model, batch)) == pytest.approx(expected)
    # The penalty is no mean over images: a process that has a part of the batch adds the whole of it.
    assert value(loss(model, batch._replace(weight=0.5))) == pytest.approx(
        cross_entropy(logits(model, batch), batch.labels.tolist()) / 2 + weight / 2 * way
    )


def origin_of(model):
    """Undo the moves that :func:`tests.training.objectives.tiny.prepared` made after the objective was prepared."""
    generator = torch.Generator().manual_seed(6)
    origin = {}
    for name, moved in model.visual.named_parameters():
        origin[f"visual.{name}"] = moved.detach() - 0.05 * torch.randn(
            moved.shape, generator=generator, dtype=moved.dtype
        )
    return origin


def test_l2_sp_leaves_out_what_is_frozen_and_counts_a_head_that_is_trained():
    values = []
    for head in ("frozen", "trained"):
        loss, model, _, batch = prepared("l2-sp", head=head)
        before = value(loss(model, batch))
        with torch.no_grad():
            model.bias += 2.0  # of all classes: no probability changes
        values.append(value(loss(model, batch)) - before)
    assert values == pytest.approx([0, 0.1 / 2 * 3 * 4])


@pytest.mark.parametrize("decay", [0.1, 0.7])
def test_lp_ft_begins_with_the_head_that_full_batches_of_adamw_reach(decay):
    """Decoupled decay, bias-corrected moments (Loshchilov and Hutter 2019, algorithm 2), a batch an epoch: 20 images here."""
    _, model, start, _ = prepared("lp-ft", "steps=3", "lr=0.05", head="trained", wd=decay)
    _, fresh, _, _ = prepared("cross-entropy", head="trained")
    weight, bias = fresh.weight.detach().clone(), fresh.bias.detach().clone()
    features, labels = start.fixed_features().features, start.fixed_features().labels
    moments = [torch.zeros_like(weight), torch.zeros_like(weight), torch.zeros_like(bias), torch.zeros_like(bias)]
    for step in (1, 2, 3):
        probabilities = torch.softmax(features @ weight.T + bias, -1)
        error = (probabilities - torch.nn.functional.one_hot(labels, 3)) / 20
        for place, (weights, gradient) in enumerate(((weight, error.T @ features), (bias, error.sum(0)))):
            first, second = moments[2 * place : 2 * place + 2]
            first.mul_(0.9).add_(0.1 * gradient)
            second.mul_(0.999).add_(0.001 * gradient**2)
            weights.mul_(1 - 0.05 * decay)
            weights.sub_(0.05 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8))
    assert torch.allclose(model.weight, weight)
    assert torch.allclose(model.bias, bias)
    loss, model, _, batch = prepared("lp-ft", "steps=3", "lr=0.05", head="trained", wd=decay)
    assert value(loss(model, batch)) == pytest.approx(cross_entropy(logits(model, batch), batch.labels.tolist()))


def test_logits_of_a_classifier_are_products_of_its_features_and_its_head():
    _, model, _, batch = prepared("cross-entropy")
    answers, features = model(batch.images, with_features=True)
    assert features.norm(dim=-1).tolist() == pytest.approx([1] * 5)
    for row, products in zip(rows(answers), cosines(features, model.weight), strict=True):
        assert row == pytest.approx(products)
