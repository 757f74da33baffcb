"""Typographic attacks: the name of a wrong class written on an image, as a task of its own, ``typo:NAME``.

PAINT (section 6) patches CLIP against them; neither its generator nor a tool was released. Text, place, size and colour follow
from a seed and the index of the image alone, not from the order or the number of workers. In training they follow from the
epoch too; where features are computed once (a frozen encoder), they stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.datasets import samples, splits
from wisepatch.datasets.base import Dataset
from wisepatch.datasets.fonts import FONTS, check_font, fonts_for
from wisepatch.datasets.samples import Annotations, Samples, Transform, annotations_of, fingerprint, labels_of
from wisepatch.datasets.text_overlay import overlay
from wisepatch.errors import DataError, UsageError
from wisepatch.files import sha256

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

PREFIX = "typo:"
ATTACK_METRICS = ("attack_success", "neither")  # need to know what is written on each image
WRONG, RANDOM_WORD = "wrong", "random-word"
SEED_STREAM = 7  # the first number of every seed here, so that no other random numbers are the same
RANDOM_WORDS = (
    "anchor", "autumn", "basket", "bottle", "bridge", "butter", "candle", "castle", "cherry", "copper", "desert", "dinner",
    "engine", "feather", "forest", "garden", "hammer", "harbor", "honey", "island", "jacket", "kettle", "ladder", "lantern",
    "lemon", "marble", "market", "meadow", "mirror", "needle", "ocean", "orchid", "paper", "pepper", "pillow", "planet",
    "pocket", "rabbit", "ribbon", "river", "saddle", "salmon", "shadow", "silver", "spider", "summer", "sunset", "thunder",
    "ticket", "tunnel", "velvet", "violin", "walnut", "window", "winter", "wizard",
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """Text, letter height, fonts and seed of an attack.

    ``text`` is ``wrong`` (the name of a wrong class), ``random-word``, or any text of your own. No image is given its own class
    name: where your own text is that, the image has the name of a wrong class instead. ``low`` and ``high`` bound the height of
    the letters as fractions of the shorter side of the image (PAINT's appendix has 20 to 40 pixels of 224: 0.09 to 0.18).
    ``fonts`` are names of :data:`~wisepatch.datasets.fonts.FONTS` or files.
    """

    text: str = WRONG
    low: float = 0.2
    high: float = 0.4
    fonts: tuple[str, ...] = FONTS
    seed: int = 0

    def __post_init__(self) -> None:
        """Check sizes, text and fonts. Raises :class:`UsageError`."""
        if not 0 < self.low <= self.high <= 1:
            problem = f"letters of {self.low:g} to {self.high:g} of the image are not possible"
            raise UsageError(problem, "give two fractions in order, such as 0.1:0.3")
        if not self.text.strip():
            raise UsageError("there is no text to write", f"give --text {WRONG}, {RANDOM_WORD}, or words of your own")
        if not self.fonts:
            raise UsageError("there is no font to write with", "name one, or leave the choice to wisepatch")
        for name in self.fonts:
            if name not in FONTS:
                check_font(name)

    def texts(self, classes: Sequence[str]) -> Sequence[str]:
        """Return all texts that may be written on images of some classes."""
        if self.text == RANDOM_WORD:
            return RANDOM_WORDS
        own = plain(self.text)
        wrong = classes if self.text == WRONG or own in map(plain, classes) else ()
        return (*wrong, *(() if self.text == WRONG else (self.text,)))


def attacked(dataset: Dataset, style: Style | None = None) -> Dataset:
    """Make the task ``typo:<name>``: the images of ``dataset`` with text on them, its own classes, labels, splits and prompts.

    Besides its metric it reports ``attack_success`` (the model answers the written class) and ``neither``. Raises
    :class:`UsageError` for a task with one class, of which none is wrong, and for one whose images are written on already.
    """
    style = style or Style()
    if "attack_success" in dataset.extra_metrics:
        raise UsageError(f"the images of {dataset.name} are written on already", f"leave {PREFIX} out")
    names = {plain(name) for name in dataset.classes}
    if len(names) < 2 and (style.text == WRONG or plain(style.text) in names):
        problem = f"{dataset.name} has one class, and an attack needs the name of another"
        raise UsageError(problem, "add classes, or write other words with --text")
    return replace(
        dataset,
        name=f"{PREFIX}{dataset.name}",
        open=AttackedOpener(dataset, style),
        extra_metrics=(*dataset.extra_metrics, *ATTACK_METRICS),
        aliases=(),
        zeroshot={},
    )


@dataclass(frozen=True)
class AttackedOpener:
    """``open`` of an attacked task: equal for equal tasks, and known to workers that are spawned."""

    dataset: Dataset
    style: Style

    def around(self, dataset: Dataset) -> Dataset:
        """Make the same task of another ``dataset``."""
        return attacked(dataset, self.style)

    def __call__(self, split: str, root: Path, transform: Transform | None = None) -> AttackedSamples:
        """Open a split of the clean task, and write on its images.

        Raises :class:`DataError` where a text that may be written has characters that no font has: before a training and not after.
        """
        try:
            for text in self.style.texts(self.dataset.classes):
                fonts_for(text, self.style.fonts)
        except DataError as error:
            raise DataError(f"{PREFIX}{self.dataset.name}: {error.message}", error.hint) from error
        samples = self.dataset.open_guarded(split, root)
        return AttackedSamples(samples, self.dataset.classes, split, self.style, transform)


class AttackedSamples:
    """Images of a split with text on them. The text of an image is fixed until :meth:`set_epoch` is called."""

    def __init__(
        self, samples: Samples, classes: tuple[str, ...], split: str, style: Style, transform: Transform | None = None
    ) -> None:
        """Wrap ``samples``, which give RGB images without a transform; ``transform`` follows the overlay."""
        self.samples, self.classes, self.split, self.style, self.transform = samples, classes, split, style, transform
        self.names = [plain(name) for name in classes]  # one may stand twice in a list
        self.epoch: int | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the attacked image ``index`` and the label of the image itself."""
        image, label, _ = self.written(index)
        return (self.transform(image) if self.transform else image), label

    def written(self, index: int) -> tuple[Image.Image, int, str]:
        """Return the attacked image ``index`` before the transform, its label, and the text on it.

        Raises :class:`DataError` that names the image where the text fits at no size.
        """
        image, label = self.samples[index]
        rng = self._generator(index)
        text = self._text(label, rng)
        try:
            return overlay(image if image.mode == "RGB" else image.convert("RGB"), text, rng, self.style), label, text
        except DataError as error:
            raise DataError(f"image {self.image_ids()[index]}: {error.message}", error.hint) from error

    def written_class(self, index: int, label: int) -> int:
        """Return the class whose name is written on image ``index`` of class ``label``, or -1; decodes nothing.

        Of two classes of one name the first: a model cannot tell them apart, and answers the first of two equal ones.
        """
        name = plain(self._text(label, self._generator(index)))
        return self.names.index(name) if name in self.names else -1

    def set_epoch(self, epoch: int) -> None:
        """Draw other texts, as training does each epoch; the same epoch gives the same texts, also after a resume."""
        self.epoch = epoch
        samples.set_epoch(self.samples, epoch)

    def _generator(self, index: int) -> np.random.Generator:
        import numpy as np

        epoch = 0 if self.epoch is None else self.epoch + 1
        return np.random.default_rng([SEED_STREAM, self.style.seed, splits.number_of(self.split), index, epoch])

    def _text(self, label: int, rng: np.random.Generator) -> str:
        own, text = self.names[label], self.style.text
        if text == WRONG or plain(text) == own:
            others = [name for name, key in zip(self.classes, self.names, strict=True) if key != own]
        elif text == RANDOM_WORD:
            others = [word for word in RANDOM_WORDS if word != own]
        else:
            return text
        return others[int(rng.integers(len(others)))]

    def image_ids(self) -> list[str]:
        """Name each image as the clean task does."""
        return samples.image_ids(self.samples)

    def own_files(self) -> list[str]:
        """Return the files of the clean images, where they are a user's own."""
        return samples.own_files(self.samples)

    @property
    def labels(self) -> Sequence[int] | None:
        """The labels of all images, where they are known without decoding one."""
        return labels_of(self.samples)

    @property
    def annotations(self) -> Annotations:
        """Annotations of the images, and the class that is written on each (-1: none of the task's)."""
        return replace(annotations_of(self.samples), written=WrittenClasses(self))

    def fingerprint(self) -> str:
        """Return a text that differs for other images, and for another overlay on the same."""
        fonts = [sha256(Path(name)) for name in self.style.fonts if name not in FONTS]
        return f"{self.style} {fonts} {self.classes} {self.split} {self.epoch} on {fingerprint(self.samples)}"


class WrittenClasses(Sequence[int]):
    """The class that is written on each image, -1 where it is none; decodes images whose labels are unknown, when looked at."""

    def __init__(self, samples: AttackedSamples) -> None:
        """Read from ``samples``."""
        self.samples, self.labels = samples, samples.labels
        self.known: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        """Return the class on image ``index``; of a slice a list of them."""
        places = range(len(self))[index]
        if isinstance(places, range):
            return [self[place] for place in places]
        if places not in self.known:
            label = self.samples.samples[places][1] if self.labels is None else self.labels[places]
            self.known[places] = self.samples.written_class(places, label)
        return self.known[places]


def plain(name: str) -> str:
    """Return a name as it is compared with others: in any case, with single spaces."""
    return " ".join(name.split()).casefold()
