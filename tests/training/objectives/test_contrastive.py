"""FLYP against a slow transcription, and the loss of a batch that several processes share."""

import math

import pytest
import torch

from tests.training.objectives.tiny import NAMES, TEMPLATES, cosines, prepared, softmax, value
from wisepatch.models.zeroshot_head import text_features, tokenize
from wisepatch.training.objectives import contrastive
from wisepatch.training.objectives.contrastive import contrast, of_all


def clip_loss(images, texts, scale):
    """CLIP's loss, image by image and text by text."""
    products = [[scale * product for product in row] for row in cosines(images, texts)]
    columns = list(map(list, zip(*products, strict=True)))
    losses = [-math.log(softmax(row)[place]) for rows in (products, columns) for place, row in enumerate(rows)]
    return sum(losses) / len(losses)


def test_each_image_is_told_from_the_prompts_of_its_batch_and_each_prompt_from_its_images():
    loss, model, start, batch = prepared("flyp", images=6)
    drawn = torch.randint(3, (6,), generator=torch.Generator().manual_seed(batch.number)).tolist()
    prompts = [TEMPLATES[place].format(NAMES[label]) for label, place in zip(batch.labels.tolist(), drawn, strict=True)]
    assert len(set(drawn)) > 1
    with torch.no_grad():
        texts = text_features(start.clip.model, tokenize(start.clip, prompts)[0])
        _, images = model(batch.images, with_features=True)
        scale = float(start.clip.model.logit_scale.exp())
    assert value(loss(model, batch)) == pytest.approx(clip_loss(images, texts, scale))


def test_templates_are_drawn_by_seed_and_batch_alone():
    loss, model, _, batch = prepared("flyp")
    values = [value(loss(model, batch._replace(number=number))) for number in (0, 1, 2, 0)]
    assert values[0] == values[3]
    assert len(set(values)) > 1


def test_both_towers_and_their_scale_get_gradients_each_parameter_once():
    loss, model, start, batch = prepared("flyp")
    loss(model, batch).backward()
    named = dict(model.named_parameters())
    assert {name.split(".")[0] for name in named} == {"visual", "text", "weight", "bias"}
    of_clip = {id(each) for each in start.clip.model.parameters()}
    assert of_clip == {id(each) for name, each in named.items() if name not in ("weight", "bias")}
    assert len(named) == len(of_clip) + 2
    assert all(each.grad is not None for each in start.clip.model.parameters())
    assert start.clip.model.logit_scale.grad.abs() > 0


def test_several_processes_get_the_loss_and_the_gradients_of_the_whole_batch(monkeypatch):
    """Three rows here, two there: the mean of the two processes' gradients is that of all five rows."""
    generator = torch.Generator().manual_seed(1)
    leaves = [torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    whole = contrast(*leaves, scale)
    expected = torch.autograd.grad(whole, [*leaves, scale])
    shares, summed = [(0, 3), (3, 5)], [torch.zeros_like(each) for each in expected]
    for rank, (first, end) in enumerate(shares):
        monkeypatch.setattr(contrastive, "size", lambda: 2)
        monkeypatch.setattr(contrastive, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(contrastive, "from_all", lambda _: [3, 2])
        gathered = []
        for leaf in leaves:

            def gather(parts, _, leaf=leaf):
                for part, (begin, stop) in zip(parts, shares, strict=True):
                    part.zero_()[: stop - begin] = leaf.detach()[begin:stop]

            monkeypatch.setattr(torch.distributed, "all_gather", gather)
            gathered.append(of_all(leaf[first:end]))
        loss = contrast(*gathered, scale)
        assert value(loss) == pytest.approx(value(whole))
        for total, gradient in zip(summed, torch.autograd.grad(loss, [*leaves, scale]), strict=True):
            total += gradient / 2
    for total, gradient in zip(summed, expected, strict=True):
        assert torch.allclose(total, gradient)
