"""Typographic attacks: the name of a wrong class written on an image, as a task of its own, ``typo:NAME``.

PAINT (section 6) patches CLIP against them; neither its generator nor a tool was released. What is written, where, how large
and in which colour follows from a seed and the index of the image alone, not from the order or the number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.datasets.base import Context, context, fingerprint, labels_of
from wisepatch.datasets.lettering import FONTS, font
from wisepatch.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from wisepatch.datasets.base import Dataset, Samples, Transform
    from wisepatch.datasets.lettering import Font

PREFIX = "typo:"
WRONG, RANDOM_WORD = "wrong", "random-word"
SMALLEST = 5  # pixels; nothing can be read below
FAR = 70  # between the mean brightness of ink and of what lies under it
STREAM = 7  # the first number of every seed here, so that no other random numbers are the same
RANDOM_WORDS = (
    "anchor", "autumn", "basket", "bottle", "bridge", "butter", "candle", "castle", "cherry", "copper", "desert", "dinner",
    "engine", "feather", "forest", "garden", "hammer", "harbor", "honey", "island", "jacket", "kettle", "ladder", "lantern",
    "lemon", "marble", "market", "meadow", "mirror", "needle", "ocean", "orchid", "paper", "pepper", "pillow", "planet",
    "pocket", "rabbit", "ribbon", "river", "saddle", "salmon", "shadow", "silver", "spider", "summer", "sunset", "thunder",
    "ticket", "tunnel", "velvet", "violin", "walnut", "window", "winter", "wizard",
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How an attack writes. ``text`` is ``wrong`` (the name of a wrong class), ``random-word``, or any text of your own.

    ``low`` and ``high`` bound the height of the letters as fractions of the shorter side of the image (PAINT's appendix has
    20 to 40 pixels of 224: 0.09 to 0.18). ``fonts`` are names of :data:`~wisepatch.datasets.lettering.FONTS` or files.
    """

    text: str = WRONG
    low: float = 0.2
    high: float = 0.4
    fonts: tuple[str, ...] = FONTS
    seed: int = 0

    def __post_init__(self) -> None:
        """Check sizes, text and fonts. Raises :class:`UsageError`."""
        if not 0 < self.low <= self.high <= 1:
            raise UsageError(
                f"letters of {self.low:g} to {self.high:g} of the image are not possible",
                "give two fractions in order, such as 0.1:0.3",
            )
        if not self.text.strip():
            raise UsageError("there is no text to write", f"give --text {WRONG}, {RANDOM_WORD}, or words of your own")
        for name in self.fonts:
            if name not in FONTS:
                check_font(name)


def check_font(path: str) -> None:
    """Raise :class:`UsageError` unless ``path`` is a font file that can be read."""
    from PIL import ImageFont

    try:
        ImageFont.truetype(path, 12)
    except OSError as error:
        reason = "it does not exist" if not Path(path).exists() else "it is no font that FreeType reads"
        raise UsageError(f"the font {path} cannot be used: {reason}", "give a .ttf or .otf file") from error


def attacked(dataset: Dataset, style: Style | None = None) -> Dataset:
    """The task ``typo:<name>``: the images of ``dataset`` with writing on them, its own classes, labels, splits and prompts.

    Besides its metric it reports ``attack_success`` (the model says the written class) and ``neither``. Raises
    :class:`UsageError` for a task with one class, of which none is wrong.
    """
    style = style or Style()
    if style.text == WRONG and len({_plain(name) for name in dataset.classes}) < 2:
        raise UsageError(f"{dataset.name} has one class, and an attack needs the name of another")

    return replace(
        dataset,
        name=f"{PREFIX}{dataset.name}",
        open=_Opener(dataset, style),
        also=(*dataset.also, "attack_success", "neither"),
        aliases=(),
    )


@dataclass(frozen=True)
class _Opener:
    """``open`` of an attacked task; a class, so that workers can be spawned."""

    dataset: Dataset
    style: Style

    def __call__(self, split: str, root: Path, transform: Transform | None = None) -> AttackedSamples:
        samples = self.dataset.open(split, root, None)
        return AttackedSamples(samples, self.dataset.classes, split, self.style, transform)


class AttackedSamples:
    """Images of a split with writing on them. The text of an image is fixed until :meth:`set_epoch` is called."""

    def __init__(
        self, samples: Samples, classes: tuple[str, ...], split: str, style: Style, transform: Transform | None = None
    ) -> None:
        """Wrap ``samples``, which give RGB images without a transform; ``transform`` follows the writing."""
        self.samples, self.classes, self.split, self.style, self.transform = samples, classes, split, style, transform
        self.epoch: int | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return image ``index``, written on, and its own label."""
        image, label, _ = self.written(index)
        return (self.transform(image) if self.transform else image), label

    def written(self, index: int) -> tuple[Image.Image, int, str]:
        """Image ``index`` with the writing on it, its label, and the text.

        Raises :class:`DataError` that names the image where the text fits at no size.
        """
        image, label = self.samples[index]
        rng = self._generator(index)
        text = self._text(label, rng)
        try:
            return overlay(image.convert("RGB"), text, rng, self.style), label, text
        except DataError as error:
            raise DataError(f"image {index}: {error.message}", error.hint) from error

    def set_epoch(self, epoch: int) -> None:
        """Draw the writing anew, as training does each epoch; the same epoch gives the same writing, also after a resume."""
        self.epoch = epoch

    def _generator(self, index: int) -> np.random.Generator:
        import numpy as np

        split = ("train", "val", "test").index(self.split)
        return np.random.default_rng(
            [STREAM, self.style.seed, split, index, 0 if self.epoch is None else self.epoch + 1]
        )

    def _text(self, label: int, rng: np.random.Generator) -> str:
        if self.style.text == WRONG:
            others = wrong_classes(self.classes, label)
            return self.classes[others[int(rng.integers(len(others)))]]
        if self.style.text == RANDOM_WORD:
            own = _plain(self.classes[label])
            words = [word for word in RANDOM_WORDS if word != own]
            return words[int(rng.integers(len(words)))]
        return self.style.text

    @property
    def labels(self) -> Sequence[int] | None:
        """The labels of all images, where they are known without decoding one."""
        return labels_of(self.samples)

    @property
    def context(self) -> Context:
        """What metrics know of the images, and which class is written on each (-1: none of the task's)."""
        return replace(context(self.samples), written=Written(self))

    def fingerprint(self) -> str:
        """Return what tells these images and this writing from others."""
        return f"{self.style} {self.split} {self.epoch} on {fingerprint(self.samples)}"


class Written(Sequence[int]):
    """The class that is written on each image, by index: a sequence that needs labels, and decodes where it must."""

    def __init__(self, samples: AttackedSamples) -> None:
        """Read from ``samples``; nothing is decoded before the first look."""
        self.samples = samples
        self.labels = samples.labels
        self.by_name = {name: index for index, name in enumerate(samples.classes)}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        """Return the written class of image ``index``, or -1; of a slice a list of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index >= len(self):
            raise IndexError(index)
        label = self.samples.samples[index][1] if self.labels is None else self.labels[index]
        return self.by_name.get(self.samples._text(label, self.samples._generator(index)), -1)


def wrong_classes(classes: tuple[str, ...], label: int) -> tuple[int, ...]:
    """The classes whose names are not the name of class ``label`` (names may stand twice in a list)."""
    return _wrong(classes)[label]


@cache
def _wrong(classes: tuple[str, ...]) -> dict[int, tuple[int, ...]]:
    plain = [_plain(name) for name in classes]
    return {i: tuple(j for j, name in enumerate(plain) if name != own) for i, own in enumerate(plain)}


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()


def overlay(image: Image.Image, text: str, rng: np.random.Generator, style: Style) -> Image.Image:
    """``text`` written wholly inside a copy of ``image`` (RGB), in a random face, size, colour and place.

    The ink has a one-pixel outline in black or white, whichever is further from it. Text that is too wide is wrapped at
    spaces and hyphens, then shrunk. Raises :class:`DataError` where it fits at no size from 5 pixels up.
    """
    import numpy as np
    from PIL import Image, ImageFilter

    ink, size = _fitting_ink(text, image.size, rng, style)
    width, height = size
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    box = (left, top, left + width, top + height)
    pixels = np.asarray(image.crop(box), dtype=np.float32)
    weight = np.asarray(ink, dtype=np.float32)[..., None] / 255
    under = (pixels * weight).sum((0, 1)) / max(float(weight.sum()), 1.0)
    color = _far_color(rng, float(under.mean()))
    edge = np.asarray(ink.filter(ImageFilter.MaxFilter(3)), dtype=np.float32)[..., None] / 255
    outlined = pixels * (1 - edge) + np.float32(255 if color.mean() < 128 else 0) * edge
    mixed = outlined * (1 - weight) + color * weight
    result = image.copy()
    result.paste(Image.fromarray(mixed.clip(0, 255).astype(np.uint8)), (left, top))
    return result


def _far_color(rng: np.random.Generator, under: float) -> np.ndarray[Any, Any]:
    import numpy as np

    while True:
        color = rng.uniform(0, 255, 3).astype(np.float32)
        if abs(float(color.mean()) - under) > FAR:
            return color


def _fitting_ink(
    text: str, room: tuple[int, int], rng: np.random.Generator, style: Style
) -> tuple[Image.Image, tuple[int, int]]:
    """The text as a mask with one empty pixel around the ink, for the outline, no larger than ``room``."""
    from PIL import Image

    faces = [name for name in style.fonts if has_all(name, text)]
    if not faces:
        raise DataError(
            f"no font here has all characters of {text!r}", "name one that has with --font FILE, or other class names"
        )
    name = faces[int(rng.integers(len(faces)))]
    asked = max(round(rng.uniform(style.low, style.high) * min(room)), SMALLEST)
    for size in range(asked, SMALLEST - 1, -1):
        ink = _rendered(text, name, size, room[0] - 2)
        if ink is not None and ink.height + 2 <= room[1]:
            mask = Image.new("L", (ink.width + 2, ink.height + 2))
            mask.paste(ink, (1, 1))
            return mask, mask.size
    raise DataError(
        f"{text!r} fits into {room[0]} x {room[1]} pixels at no size from {SMALLEST} pixels up",
        "take larger images, or a shorter text",
    )


@cache
def _rendered(text: str, name: str, size: int, width: int) -> Image.Image | None:
    """The ink of a text and nothing around it, wrapped to ``width`` pixels; ``None`` where a word is wider than that."""
    from PIL import Image, ImageDraw

    face = _face(name, size)
    lines = _wrapped(text, face, width)
    if lines is None:
        return None
    wide = round(max(face.getlength(line) for line in lines)) + 4 * size
    canvas = Image.new("L", (wide, (len(lines) + 3) * 2 * size))
    ImageDraw.Draw(canvas).multiline_text(
        (2 * size, size), "\n".join(lines), fill=255, font=face, align="center", spacing=1
    )
    ink = canvas.crop(canvas.getbbox())
    return ink if ink.width <= width else None


def _wrapped(text: str, face: Font, width: int) -> list[str] | None:
    """Lines of at most ``width`` pixels, broken after spaces and hyphens; ``None`` where one piece alone is wider."""
    pieces = text.replace("-", "- ").replace("/", "/ ").split()
    lines = [""]
    for piece in pieces:
        glue = " " if lines[-1] and not lines[-1].endswith(("-", "/")) else ""
        if lines[-1] and face.getlength(lines[-1] + glue + piece) > width:
            lines.append(piece)
        else:
            lines[-1] += glue + piece
    return lines if all(face.getlength(line) <= width for line in lines) else None


@cache
def _face(name: str, size: int) -> Font:
    from PIL import ImageFont

    return font(name, size) if name in FONTS else ImageFont.truetype(name, size)


@cache
def has_all(name: str, text: str) -> bool:
    """Whether a face has a glyph for every character of ``text`` (Pillow's own face is taken to have printable ASCII)."""
    if name == "":
        return text.isascii() and text.isprintable()
    from matplotlib.ft2font import FT2Font

    known = FT2Font(str(_face(name, 12).path)).get_charmap()
    return all(ord(character) in known or character.isspace() for character in text)
