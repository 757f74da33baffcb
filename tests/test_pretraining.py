"""The script that made the embedded model, and what that model can do."""

import numpy as np
import open_clip
import pytest
import torch

from wisepatch import ModelConfig, Store, find_tasks, zeroshot
from wisepatch.datasets.lettering import FONTS, fitting_font, text_mask
from wisepatch.datasets.scenes import generator
from wisepatch.pretraining import ABSENT, ATTRIBUTES, WORDS, Drawings, attribute_losses, picture, pretrain, save


def test_pictures_depend_on_seed_and_index_alone():
    first, second = Drawings(100, 0)[7], Drawings(100, 0)[7]
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], Drawings(100, 1)[7][0])


def test_pictures_show_shapes_words_and_letters_and_never_a_digit():
    names = list(ATTRIBUTES)
    labels = np.array([picture(generator("pretraining", 1, i))[1] for i in range(400)])
    shown = dict(zip(names, (labels != ABSENT).mean(0), strict=True))
    assert shown["texture"] == 1
    assert 0.4 < shown["color"] < shown["shape"] < 0.7  # a written shape is captioned as that shape
    assert shown["word"] == shown["first"] == shown["last"]
    assert 0.1 < shown["letter"] < 0.3
    assert not any(character.isdigit() for word in WORDS for character in word)
    assert len(set(WORDS)) == len(WORDS)


def test_what_else_is_true_of_a_picture_is_not_held_against_it():
    """A circle with "square" on it: its shape is not contrasted with square, its word not with circle."""
    generator_ = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize
    texts = {a: unit(torch.randn(len(c), 8, generator=generator_), dim=-1) for a, (c, _) in ATTRIBUTES.items()}
    image = unit(torch.randn(1, 8, generator=generator_), dim=-1)
    label = dict.fromkeys(ATTRIBUTES, ABSENT) | {"shape": 0, "color": 0, "texture": 0, "word": 1}
    losses = attribute_losses(image, texts, torch.tensor([list(label.values())]), torch.tensor(10.0))
    logits = 10 * image @ texts["shape"].T
    without = logits[:, [i for i in range(10) if i != 1]]
    assert losses["shape"].item() == pytest.approx((without.logsumexp(1) - logits[:, 0]).item(), abs=1e-4)
    words = 10 * image @ texts["word"].T
    kept = [i for i in range(len(WORDS)) if i not in (0, 10)]
    assert losses["word"].item() == pytest.approx((words[:, kept].logsumexp(1) - words[:, 1]).item(), abs=1e-4)
    assert losses["letter"].item() == 0


def test_caption_that_follows_the_writing_is_contrasted_with_what_is_drawn():
    texts = {a: torch.eye(len(c), 128) for a, (c, _) in ATTRIBUTES.items()}
    label = dict.fromkeys(ATTRIBUTES, ABSENT) | {"shape": 1, "color": 0, "texture": 0, "word": 1}
    reads = attribute_losses(texts["shape"][1:2], texts, torch.tensor([list(label.values())]), torch.tensor(10.0))
    looks = attribute_losses(texts["shape"][0:1], texts, torch.tensor([list(label.values())]), torch.tensor(10.0))
    assert reads["shape"] < 0.01 < 9 < looks["shape"]
    assert reads["word"] < looks["word"]


def test_short_pretraining_repeats_exactly_and_open_clip_loads_what_it_writes(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        models = [pretrain(steps=2, batch_size=8, workers=workers) for workers in (0, 1)]
    finally:
        torch.set_num_threads(threads)
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    save(models[0], tmp_path)
    loaded = open_clip.create_model(f"local-dir:{tmp_path}").state_dict()
    assert all(torch.equal(loaded[name], first[name].half().float()) for name in first)


def test_words_are_drawn_whole():
    for name in FONTS:
        for word in ("circle", "CHECKERED", "yellow"):
            face = fitting_font(word, name, 26, 60)
            inside = np.asarray(text_mask(word, face, 64, 0.0, 1.0)).astype(int).sum()
            roomy = np.asarray(text_mask(word, face, 128, 0.5, 0.5)).astype(int).sum()
            assert inside == pytest.approx(roomy, rel=0.03)


@pytest.mark.slow
def test_embedded_model_knows_its_tasks_and_no_digits(tmp_path):
    tasks = find_tasks(["Shapes", "Colors", "Textures", "Digits"])
    _, rows = zeroshot(ModelConfig("demo", ""), tasks, Store(tmp_path), tmp_path)
    accuracy = {row["task"]: row["value"] for row in rows}
    assert min(accuracy[name] for name in ("Shapes", "Colors", "Textures")) >= 0.9
    assert accuracy["Digits"] < 0.25
