"""Distillation, Lipsum-FT and CAR-FT, against slow transcriptions of their equations."""

import math

import open_clip
import pytest
import torch

from tests.training.objectives.tiny import (
    NAMES,
    OTHERS,
    TEMPLATES,
    cosines,
    cross_entropy,
    kl,
    prepared,
    rows,
    softmax,
    value,
)
from wisepatch.models.zeroshot_head import text_features, tokenize
from wisepatch.training.objectives.teaching import random_tokens


def features_of(model, images):
    with torch.no_grad():
        return model(images, with_features=True)


def before(name, images, *params, **settings):
    """Features of the model as it was when the objective was prepared."""
    _, model, _, _ = prepared(name, *params, **settings)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for each in model.visual.parameters():
            each.sub_(0.05 * torch.randn(each.shape, generator=generator, dtype=each.dtype))
    return features_of(model, images)[1]


def embedded(clip, texts):
    """The mean of the features of texts, of unit length, one by one, scaled."""
    tokens, _ = tokenize(clip, texts)
    with torch.no_grad():
        mean = text_features(clip.model, tokens).mean(0)
    return (clip.model.logit_scale.exp() * mean / mean.norm()).tolist()


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        ("all", {**dict.fromkeys(NAMES, TEMPLATES), "tree": ("a {}.",)}),
        ("task", dict.fromkeys(NAMES, TEMPLATES)),
    ],
)
def test_distillation_adds_the_squared_temperature_times_the_divergence_from_the_start(classes, names):
    given = (f"classes={classes}", "temperature=3", "weight=0.7")
    loss, model, start, batch = prepared("distill", *given)
    head = torch.tensor([embedded(start.clip, [text.format(name) for text in texts]) for name, texts in names.items()])
    logits, now = features_of(model, batch.images)
    then = before("distill", batch.images, *given)
    distances = [
        kl(softmax(old, 3), softmax(new, 3)) for old, new in zip(cosines(then, head), cosines(now, head), strict=True)
    ]
    expected = cross_entropy(rows(logits), batch.labels.tolist()) + 0.7 * 9 * sum(distances) / 5
    assert value(loss(model, batch)) == pytest.approx(expected, rel=1e-5)
    assert OTHERS.dataset.classes == ("tree", "cat")  # the patching task's prompts are kept for a name that both have


def test_distillation_on_other_images_leaves_the_task_its_labels_and_weighs_each_batch_by_itself():
    loss, model, _, batch = prepared("distill")
    others = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    together = value(loss(model, batch._replace(others=others, weight=0.5, others_weight=2.0)))
    logits, _ = features_of(model, batch.images)
    alone = value(loss(model, batch._replace(images=others, labels=torch.zeros(3, dtype=torch.long))))
    wrong, _ = features_of(model, others)
    distance = alone - cross_entropy(rows(wrong), [0, 0, 0])
    assert distance > 0
    assert together == pytest.approx(0.5 * cross_entropy(rows(logits), batch.labels.tolist()) + 2 * distance, rel=1e-5)


def test_lipsum_adds_half_the_mean_squared_gap_of_energies_under_random_texts():
    given = ("weight=0.3", "texts=4", "length=3")
    loss, model, start, batch = prepared("lipsum", *given)
    tokens = random_tokens(start, batch.number)
    padded = torch.nn.functional.pad(tokens, (0, 77 - tokens.shape[1]))
    with torch.no_grad():
        texts = start.clip.model.encode_text(padded, normalize=True)
    scale = math.exp(value(start.clip.model.logit_scale))
    logits, now = features_of(model, batch.images)
    then = before("lipsum", batch.images, *given)
    gaps = 0.0
    for old, new in zip(cosines(then, texts), cosines(now, texts), strict=True):
        gaps += sum((scale * a - scale * b) ** 2 for a, b in zip(old, new, strict=True)) / (2 * 4)
    assert value(loss(model, batch)) == pytest.approx(
        cross_entropy(rows(logits), batch.labels.tolist()) + 0.3 * gaps / 5
    )


def test_random_texts_stand_between_the_ends_and_differ_from_batch_to_batch_and_seed_to_seed():
    _, _, start, _ = prepared("lipsum")
    drawn = [random_tokens(start, number) for number in (0, 1, 0)]
    assert drawn[0].shape == (80, 10)
    assert set(drawn[0][:, 0].tolist()) == {49406}
    assert set(drawn[0][:, -1].tolist()) == {49407}
    assert int(drawn[0][:, 1:-1].max()) < 49406
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
    _, _, other, _ = prepared("lipsum", seed=1)
    assert not torch.equal(drawn[0], random_tokens(other, 0))


@pytest.mark.parametrize("head", ["frozen", "trained"])
def test_car_ft_adds_the_divergence_of_the_contexts_of_the_templates(head):
    loss, model, start, batch = prepared("car-ft", "weight=2", head=head)
    if head == "trained":
        move_head(model)
    contexts = [
        embedded(start.clip, [template(name) for name in NAMES]) for template in open_clip.OPENAI_IMAGENET_TEMPLATES
    ]
    logits, now = features_of(model, batch.images)
    then = before("car-ft", batch.images, "weight=2")
    head = torch.tensor(contexts)
    distances = [
        kl(softmax(old), softmax(new)) for old, new in zip(cosines(then, head), cosines(now, head), strict=True)
    ]
    expected = cross_entropy(rows(logits), batch.labels.tolist()) + 2 * sum(distances) / 5
    assert value(loss(model, batch)) == pytest.approx(expected, rel=1e-5)


def move_head(model):
    """Move weight and bias of a trained head away from the text features that it begins with."""
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for each in (model.weight, model.bias):
            each.add_(torch.randn(each.shape, generator=generator, dtype=each.dtype))


@pytest.mark.parametrize("name", ["distill", "lipsum", "car-ft"])
def test_a_trained_head_learns_from_labels_alone_and_what_is_kept_is_read_through_texts(name):
    loss, model, _, batch = prepared(name, head="trained")
    labels = batch.labels.tolist()
    logits, now = features_of(model, batch.images)
    kept = value(loss(model, batch)) - cross_entropy(rows(logits), labels)
    assert kept > 0
    move_head(model)
    logits = [
        [product + bias for product, bias in zip(row, rows(model.bias), strict=True)]
        for row in cosines(now, model.weight)
    ]
    moved = loss(model, batch)
    assert value(moved) == pytest.approx(cross_entropy(logits, labels) + kept, rel=1e-6)
    moved.backward()
    errors = [
        [p - (number == label) for number, p in enumerate(softmax(row))]
        for row, label in zip(logits, labels, strict=True)
    ]
    assert rows(model.bias.grad) == pytest.approx([sum(column) / 5 for column in zip(*errors, strict=True)], abs=1e-7)


@pytest.mark.parametrize("name", ["distill", "lipsum", "car-ft"])
def test_at_the_start_nothing_is_lost_but_the_cross_entropy(name):
    loss, model, _, batch = prepared(name)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for each in model.visual.parameters():
            each.sub_(0.05 * torch.randn(each.shape, generator=generator, dtype=each.dtype))
    logits, _ = features_of(model, batch.images)
    assert value(loss(model, batch)) == pytest.approx(cross_entropy(rows(logits), batch.labels.tolist()), abs=1e-9)
