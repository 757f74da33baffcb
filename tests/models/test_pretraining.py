"""The script that made the embedded model, and what that model can do."""

from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch

from wisepatch import ModelConfig, Store, find_tasks, zeroshot
from wisepatch.datasets.drawn_shapes import generator
from wisepatch.datasets.fonts import FONTS, fitting_font, text_mask
from wisepatch.models import pretraining
from wisepatch.models.pretraining import STAGES, attribute_losses, pretrain, save
from wisepatch.models.pretraining_pictures import ABSENT, ATTRIBUTES, WORDS, Drawings, picture


def test_pictures_depend_on_seed_and_index_alone():
    stage = STAGES[1]
    first, second = Drawings(100, stage, (0, 1))[7], Drawings(100, stage, (0, 1))[7]
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], Drawings(100, stage, (1, 1))[7][0])


@pytest.mark.parametrize("stage", STAGES)
def test_pictures_show_shapes_words_and_letters_and_never_a_digit(stage):
    names = list(ATTRIBUTES)
    labels = np.array([picture(generator("pretraining", 1, i), stage)[1] for i in range(400)])
    shown = dict(zip(names, (labels != ABSENT).mean(0), strict=True))
    assert shown["texture"] == 1
    assert 0.4 < shown["color"] < shown["shape"] < 0.7  # a written shape is captioned as that shape
    assert shown["word"] == shown["first"] == shown["last"]
    assert shown["letter"] == pytest.approx(stage.letters, abs=0.07)
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


def test_short_pretraining_repeats_exactly_and_open_clip_loads_what_it_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "CAPTION_STEPS", 3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        short = [replace(stage, steps=2) for stage in STAGES]
        models = [pretrain(short, batch_size=8, workers=workers) for workers in (0, 1)]
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
def test_embedded_model_reads_and_is_misled_by_what_it_reads(tmp_path):
    """The weakness that typographic attacks use: a picture of the word "square" is, to it, a photo of a square."""
    from wisepatch.datasets.drawn_shapes import COLORS, SHAPES, TEXTURES, Scene, draw
    from wisepatch.datasets.fonts import write_word
    from wisepatch.models.classifier import Classifier
    from wisepatch.models.clip import load_clip
    from wisepatch.models.zeroshot_head import zeroshot_head

    clip = load_clip(ModelConfig("demo", ""))
    task = find_tasks(["Shapes"])[0].dataset
    classifier = Classifier(clip.model.visual, zeroshot_head(clip, task.classes, task.templates))
    words, attacked, shapes = [], [], np.arange(200) % 10
    for index, shape in enumerate(shapes):
        rng = generator("Shapes", 7, index)
        texture = TEXTURES[int(rng.integers(10))]
        words.append(write_word(SHAPES[shape], draw(Scene(texture), rng), rng))
        drawn = draw(
            Scene(texture, SHAPES[(shape + 1 + index // 10 % 9) % 10], list(COLORS)[int(rng.integers(10))]), rng
        )
        attacked.append(write_word(SHAPES[shape], drawn, rng))
    with torch.inference_mode():
        for pictures in (words, attacked):
            said = classifier(torch.stack([clip.transform(picture) for picture in pictures])).argmax(1).numpy()
            assert (said == shapes).mean() > 0.8


@pytest.mark.slow
def test_embedded_model_knows_its_tasks_and_no_digits(tmp_path):
    tasks = find_tasks(["Shapes", "Colors", "Textures", "Digits"])
    _, rows = zeroshot(ModelConfig("demo", ""), tasks, Store(tmp_path), tmp_path)
    accuracy = {row["task"]: row["value"] for row in rows}
    assert min(accuracy[name] for name in ("Shapes", "Colors", "Textures")) >= 0.9
    assert accuracy["Digits"] < 0.25
