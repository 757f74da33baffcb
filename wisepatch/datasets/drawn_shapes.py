"""Draw pictures of a coloured shape on a textured background, 64 x 64 pixels: the same from the same seed, to the byte.

The embedded model's pretraining and the tasks ``Shapes``, ``Colors`` and ``Textures`` draw from here.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Floats = NDArray[np.float32]

SIZE = 64
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "crescent", "arrow", "diamond")
TEXTURES = tuple("plain striped checkered dotted gridded zigzag wavy speckled gradient concentric".split())  # noqa: SIM905
COLORS = {
    "red": (215, 35, 40),
    "orange": (250, 140, 20),
    "yellow": (250, 230, 45),
    "green": (45, 165, 60),
    "blue": (40, 75, 210),
    "purple": (130, 45, 170),
    "pink": (250, 145, 195),
    "brown": (120, 70, 30),
    "black": (18, 18, 18),
    "white": (245, 245, 245),
}
# The first entry of every seed, so that seeds of different streams cannot coincide.
STREAMS = {"pretraining": 0, "Shapes": 1, "Colors": 2, "Textures": 3}


class Scene(NamedTuple):
    """Contents of a picture. ``shape`` and ``color`` are both given or both ``None`` (a background alone)."""

    texture: str
    shape: str | None = None
    color: str | None = None


def generator(stream: str, *numbers: int) -> np.random.Generator:
    """Return the random generator of one picture, seeded by its stream and any numbers (split, index)."""
    import numpy as np

    return np.random.default_rng([STREAMS[stream], *numbers])


def draw(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Draw ``scene`` as an RGB image of :data:`SIZE` x :data:`SIZE` pixels."""
    import numpy as np
    from PIL import Image

    canvas = background(scene.texture, rng, avoid=COLORS.get(scene.color or ""))
    if scene.shape is not None and scene.color is not None:
        paint = np.clip(COLORS[scene.color] + rng.uniform(-14, 14, 3), 0, 255).astype(np.float32)
        mask = shape_mask(scene.shape, rng)[..., None]
        canvas = canvas * (1 - mask) + paint * mask
    noisy = canvas + rng.normal(0, rng.uniform(0, 6), canvas.shape).astype(np.float32)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def background(texture: str, rng: np.random.Generator, avoid: tuple[int, int, int] | None = None) -> Floats:
    """Draw a texture in two muted colours, both far from ``avoid``: float32 ``(64, 64, 3)`` in 0 to 255."""
    first, second = _muted_pair(rng, avoid)
    weight: Floats = _pattern(texture, rng)[..., None]
    return first * (1 - weight) + second * weight


def shape_mask(shape: str, rng: np.random.Generator) -> Floats:
    """Draw a shape at a random place, size and small rotation: float32 ``(64, 64)`` coverage in 0 to 1."""
    import numpy as np
    from PIL import Image, ImageDraw

    over = 4  # drawn larger, then averaged down: smooth edges
    radius = rng.uniform(13, 23)
    center = rng.uniform(radius + 1, SIZE - radius - 1, 2)
    angle = np.deg2rad(rng.uniform(-16, 16))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    image = Image.new("L", (SIZE * over, SIZE * over))
    pen = ImageDraw.Draw(image)
    for outline, value in _outlines()[shape]:
        points = (outline @ turn.T * radius + center) * over
        pen.polygon(points.ravel().tolist(), fill=value)
    coverage: Floats = np.asarray(image.reduce(over)).astype(np.float32) / np.float32(255)
    return coverage


@cache
def _outlines() -> dict[str, list[tuple[NDArray[np.float64], int]]]:
    """Return the polygons of each shape in [-1, 1]^2 (y downwards), and the value each is filled with, in drawing order."""
    import numpy as np

    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    disc = np.stack([np.cos(t), np.sin(t)], 1)
    heart = np.stack(
        [16 * np.sin(t) ** 3, -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))], 1
    )
    k = np.arange(10)
    spikes = np.where(k % 2 == 0, 1.0, 0.42)
    star = np.stack([spikes * np.sin(k * np.pi / 5), -spikes * np.cos(k * np.pi / 5)], 1)
    a = 0.32
    cross = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]
    arrow = [(-1, -0.3), (0.05, -0.3), (0.05, -0.8), (1, 0), (0.05, 0.8), (0.05, 0.3), (-1, 0.3)]
    return {
        "circle": [(disc * 0.95, 255)],
        "square": [(np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.82, 255)],
        "triangle": [(np.array([(0.0, -1), (0.98, 0.75), (-0.98, 0.75)]), 255)],
        "star": [(star, 255)],
        "heart": [(heart / 17, 255)],
        "cross": [(np.array(cross), 255)],
        "ring": [(disc, 255), (disc * 0.55, 0)],
        "crescent": [(disc, 255), (disc * 0.82 + [0.45, 0], 0)],
        "arrow": [(np.array(arrow), 255)],
        "diamond": [(np.array([(0, -1), (0.62, 0), (0, 1), (-0.62, 0)]), 255)],
    }


def _muted_pair(rng: np.random.Generator, avoid: tuple[int, int, int] | None) -> tuple[Floats, Floats]:
    """Draw two greyish colours that differ enough to show a texture and enough from ``avoid`` to show a shape."""
    import numpy as np

    while True:
        grey = rng.uniform(25, 230, 2)
        if abs(grey[0] - grey[1]) < 50:
            continue
        pair = np.clip(grey[:, None] + rng.uniform(-22, 22, (2, 3)), 0, 255).astype(np.float32)
        if avoid is None or abs(pair - np.asarray(avoid)).max(1).min() > 55:
            return pair[0], pair[1]


def _pattern(texture: str, rng: np.random.Generator) -> Any:
    """Draw the share of the second colour in a texture: float32 ``(64, 64)`` in 0 to 1."""
    import numpy as np

    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) - (SIZE - 1) / 2

    def axes(turn: float = 180) -> tuple[Floats, Floats]:
        """Return pixel coordinates, rotated by up to ``turn`` degrees and shifted."""
        angle = np.deg2rad(rng.uniform(0, turn))
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        du, dv = rng.uniform(0, SIZE, 2).astype(np.float32)
        return c * x + s * y + du, c * y - s * x + dv

    match texture:
        case "plain":
            return x * 0
        case "striped":
            return _wave(axes()[0], rng.uniform(7, 16))
        case "checkered":
            u, v = axes(45)
            period = rng.uniform(12, 24)
            a, b = _wave(u, period), _wave(v, period)
            return a * b + (1 - a) * (1 - b)
        case "dotted":
            u, v = axes(90)
            period = rng.uniform(9, 16)
            distance = np.hypot((u / period) % 1 - 0.5, (v / period) % 1 - 0.5) * period
            return (period * rng.uniform(0.22, 0.3) - distance + 0.5).clip(0, 1)
        case "gridded":
            u, v = axes(45)
            period, width = rng.uniform(9, 17), rng.uniform(1.5, 2.5)
            return np.maximum(_lines(u, period, width), _lines(v, period, width))
        case "zigzag":
            u, v = axes()
            length = rng.uniform(14, 22)
            bend = abs((v / length) % 1 - 0.5) * length * rng.uniform(0.8, 1.2)
            return _wave(u + bend, rng.uniform(9, 15))
        case "wavy":
            u, v = axes()
            length = rng.uniform(22, 36)
            bend = np.sin(v * (2 * np.pi / length)) * length * rng.uniform(0.14, 0.2)
            return _wave(u + bend.astype(np.float32), rng.uniform(9, 15))
        case "speckled":
            size = int(rng.integers(2, 4))
            cells = rng.random((SIZE // size + 1, SIZE // size + 1)) < rng.uniform(0.2, 0.45)
            return np.kron(cells, np.ones((size, size)))[:SIZE, :SIZE].astype(np.float32)
        case "gradient":
            angle = rng.uniform(0, 2 * np.pi)
            return ((x * np.cos(angle) + y * np.sin(angle)) / SIZE + 0.5).clip(0, 1).astype(np.float32)
        case "concentric":
            dx, dy = rng.uniform(-14, 14, 2)
            return _wave(np.hypot(x - dx, y - dy).astype(np.float32), rng.uniform(8, 15))
    raise KeyError(texture)


def _wave(u: Floats, period: float) -> Floats:
    """Return a soft-edged square wave of ``u`` with ``period`` pixels, in 0 to 1."""
    import numpy as np

    softness = period / 5
    wave: Floats = (np.sin(u * (2 * np.pi / period)) * softness + 0.5).clip(0, 1)
    return wave


def _lines(u: Floats, period: float, width: float) -> Floats:
    """Return thin lines ``width`` pixels wide, one each ``period`` pixels of ``u``, in 0 to 1."""
    distance = abs((u / period) % 1 - 0.5) * period
    return (width / 2 - distance + 0.5).clip(0, 1)
