"""The pictures that the embedded model learned from, and their captions: shapes, words, letters, and words over shapes."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase
from typing import TYPE_CHECKING

from wisepatch.datasets.demo import NUMBERS
from wisepatch.datasets.drawn_shapes import COLORS, SHAPES, TEXTURES, Scene, background, draw, generator
from wisepatch.datasets.fonts import write_letter, write_word

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

OTHER_WORDS = tuple(
    """
    apple bag bear bed bird boat book box bread bus cake car cat chair clock coat corn cup desk dog door duck egg fish flag
    fork frog game gate gold hand hat house ice jam key king kite lake lamp leaf lion map milk moon nest oil park pen piano
    pig queen rain road rope salt ship shoe snow sock sun table tent tree truck vase wall wolf yard zebra zoo
    """.split()  # noqa: SIM905 -- a page of words reads better than a page of quotes
)
# Shapes come first, then the other class names: word i < 10 is also shape i, word i < 20 also a shape or a colour.
WORDS = (*SHAPES, *COLORS, *NUMBERS, *OTHER_WORDS)
LETTERS = tuple(ascii_lowercase)

ATTRIBUTES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "shape": (SHAPES, ("a photo of a {}.", "a photo of the {}.", "a picture of a {} shape.", "a {}.", "{}")),
    "color": (tuple(COLORS), ("a photo of a {} thing.", "a {} object.", "a photo of a {} shape.", "{}")),
    "texture": (TEXTURES, ("a photo of a {} texture.", "a {} pattern.", "a {} background.", "{}")),
    "word": (
        WORDS,
        ("a photo of a {}.", "{}", 'the word "{}".', "a sign that says {}.", 'a photo of the number: "{}".'),
    ),
    "letter": (LETTERS, ('the letter "{}".', "a photo of the letter {}.")),
    "first": (LETTERS, ("a word that starts with {}.", "text beginning with {}.")),
    "last": (LETTERS, ("a word that ends with {}.", "text ending in {}.")),
}
ABSENT = -1


@dataclass(frozen=True)
class Stage:
    """A part of the training. ``shapes`` and ``letters`` are shares of the pictures, words are the rest.

    In the first ``ease`` of the stage words and letters move in. With ``hand`` letters are bent as by a hand. ``noise`` is added
    to the weights of the image tower for each step, relative to their spread, and taken off again: the model learns to stand
    small moves of its weights.
    """

    steps: int
    lr: float
    shapes: float
    letters: float
    ease: float = 0.0
    hand: bool = False
    noise: float = 0.0


@dataclass
class Drawings:
    """Map-style dataset of a stage's pictures: ``(uint8 (3, 64, 64), labels (7,))`` by index.

    Labels stand in the order of :data:`ATTRIBUTES`, :data:`ABSENT` where a picture has none. ``seeds`` begin each seed.
    """

    length: int
    stage: Stage
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        import numpy as np
        import torch

        ease = max(1 - index / (self.stage.ease * self.length), 0.0) if self.stage.ease else 0.0
        image, labels = picture(generator("pretraining", *self.seeds, index), self.stage, ease)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1), torch.tensor(labels)


def picture(rng: np.random.Generator, stage: Stage, ease: float = 0.0) -> tuple[Image.Image, list[int]]:
    """Draw one picture and its labels: shapes (a third of them written on), words, and letters.

    As on the web, the caption of a picture with writing in it often says what is written: the name of a shape, written on
    a background or (six times in ten) over another shape, is captioned as that shape. With an ``ease`` of 1 nearly all
    pictures are shapes and nothing is written on them.
    """
    kind = rng.random() * (1 - 0.5 * ease)
    texture = int(rng.integers(len(TEXTURES)))
    if kind >= stage.shapes and rng.random() < 0.5:
        texture = TEXTURES.index("plain")
    labels = dict.fromkeys(ATTRIBUTES, ABSENT) | {"texture": texture}
    if kind < stage.shapes:
        labels["shape"], labels["color"] = int(rng.integers(len(SHAPES))), int(rng.integers(len(COLORS)))
        image = draw(Scene(TEXTURES[texture], SHAPES[labels["shape"]], list(COLORS)[labels["color"]]), rng)
        if rng.random() < 0.35 * (1 - ease):
            labels["word"] = _choose_word(rng)
            image = write_word(WORDS[labels["word"]], image, rng)
            if rng.random() < 0.6:
                labels["shape"] = labels["word"] if labels["word"] < len(SHAPES) else ABSENT
    elif kind < 1 - stage.letters:
        labels["word"] = _choose_word(rng)
        labels["shape"] = labels["word"] if labels["word"] < len(SHAPES) else ABSENT
        image = write_word(WORDS[labels["word"]], _blank(TEXTURES[texture], rng), rng)
    else:
        labels["letter"] = int(rng.integers(len(LETTERS)))
        image = write_letter(LETTERS[labels["letter"]], _blank(TEXTURES[texture], rng), rng, hand=stage.hand)
    if labels["word"] != ABSENT:
        labels["first"], labels["last"] = (LETTERS.index(WORDS[labels["word"]][i]) for i in (0, -1))
    return image, list(labels.values())


def _choose_word(rng: np.random.Generator) -> int:
    return int(rng.integers(len(SHAPES if rng.random() < 0.5 else WORDS)))


def _blank(texture: str, rng: np.random.Generator) -> Image.Image:
    from PIL import Image

    return Image.fromarray(background(texture, rng).clip(0, 255).astype("uint8"))
