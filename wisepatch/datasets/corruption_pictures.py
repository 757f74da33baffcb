"""Draw the fifteen common corruptions from their definitions (Hendrycks and Dietterich 2019, arXiv 1903.12261, section 4.1).

The two published tables of parameters are for 224 pixels (ImageNet-C) and for 32 (CIFAR-10-C), and most of them count
pixels. An image whose shorter side has at most 84 pixels (the geometric mean of the two) takes CIFAR's, at the size that it
has; any other is resized to 224 along its shorter side, and takes ImageNet's. Two things differ from the published files: frost is
drawn, not photographed, and pictures are not stored as JPEGs afterwards.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wisepatch.datasets.images import ResizeCheck

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Array = NDArray[np.float64]  # (height, width, 3) or (height, width), from 0 to 1
    Generator = np.random.Generator

SEVERITIES = (1, 2, 3, 4, 5)
LARGE, MAX_SMALL = 224, 84  # pixels along the shorter side
GRAY = (0.299, 0.587, 0.114)  # of ITU-R BT.601
PLASMA_ROUGHNESS = 100.0
# As bright and as blue as the published photographs of frost are, on average and the darkest to the brightest.
FROST_LEVELS, FROST_TINT = (0.47, 0.82), (0.89, 1.02, 1.09)

# By kind, for 224 pixels and for 32, one entry a severity.
PARAMETERS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "gaussian_noise": ((0.08, 0.12, 0.18, 0.26, 0.38), (0.04, 0.06, 0.08, 0.09, 0.10)),  # standard deviation
    "shot_noise": ((60, 25, 12, 5, 3), (500, 250, 100, 75, 50)),  # photons
    "impulse_noise": ((0.03, 0.06, 0.09, 0.17, 0.27), (0.01, 0.02, 0.03, 0.05, 0.07)),  # share of the values
    "defocus_blur": (  # radius, sigma of its edge
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    ),
    "glass_blur": (  # sigma, distance, times
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    ),
    "motion_blur": (  # radius, sigma
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    ),
    "zoom_blur": (  # end and step of the factors, which begin at 1
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    ),
    "snow": (  # mean, deviation, zoom, threshold, radius, sigma, share of the image
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "frost": (  # shares of the image and of the frost
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    ),
    "fog": (  # thickness, decay
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    ),
    "brightness": ((0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.1, 0.15, 0.2, 0.3)),  # added to the value of HSV
    "contrast": ((0.4, 0.3, 0.2, 0.1, 0.05), (0.75, 0.5, 0.4, 0.3, 0.15)),  # that is left
    "elastic_transform": (  # strength, sigma, shift of the corners: in pixels, or of the shorter side
        ((488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88)),
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": ((0.6, 0.5, 0.4, 0.3, 0.25), (0.95, 0.9, 0.85, 0.75, 0.65)),  # share of the width
    "jpeg_compression": ((25, 18, 15, 10, 7), (80, 65, 58, 50, 40)),  # quality
}
KINDS = tuple(PARAMETERS)


def corrupt(image: Image.Image, kind: str, severity: int, rng: Generator) -> Image.Image:
    """Corrupt an RGB image; the result is no larger than 224 pixels along its shorter side.

    Raises :class:`ValueError` for an image that is too narrow to be resized.
    """
    import numpy as np
    from PIL import Image as Images

    image, small = _sized(image)
    parameters = PARAMETERS[kind][small][severity - 1]
    if kind in ON_IMAGES:
        picture: Image.Image = ON_IMAGES[kind](image, parameters)
        return picture
    pixels = np.asarray(image, dtype=np.float64) / 255
    changed = ON_PIXELS[kind](pixels, parameters, rng)
    return Images.fromarray((np.clip(changed, 0, 1) * 255).astype(np.uint8))


def _sized(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return the image at the size at which it is corrupted, and whether the table for small ones holds."""
    from PIL.Image import Resampling

    short = min(image.size)
    if short <= MAX_SMALL:
        return image, True
    ResizeCheck(LARGE)(image)
    width, height = (max(round(side * LARGE / short), LARGE) for side in image.size)
    return image.resize((width, height), Resampling.BICUBIC), False


def _gaussian_noise(x: Array, deviation: float, rng: Generator) -> Array:
    return x + rng.normal(scale=deviation, size=x.shape)


def _shot_noise(x: Array, photons: float, rng: Generator) -> Array:
    return rng.poisson(x * photons) / photons


def _impulse_noise(x: Array, share: float, rng: Generator) -> Array:
    """Set a share of the values, not of the pixels, to 0 or 1."""
    import numpy as np

    hit, white = rng.random(x.shape) < share, rng.random(x.shape) < 0.5
    return np.where(hit, white.astype(float), x)


def _defocus_blur(x: Array, parameters: tuple[float, float], _: Generator) -> Array:
    """Blur with a disk whose edge is smoothed."""
    import numpy as np
    from scipy.ndimage import convolve
    from scipy.signal import fftconvolve

    radius, sigma = parameters
    reach = max(8, math.ceil(radius))
    axis = np.arange(-reach, reach + 1)
    disk = (axis[:, None] ** 2 + axis**2 <= radius**2).astype(float)
    taps = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    edge = np.exp(-(taps**2) / (2 * sigma**2))
    kernel = convolve(disk / disk.sum(), np.outer(edge, edge) / edge.sum() ** 2, mode="mirror")
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    blurred: Array = fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))
    return blurred


def _glass_blur(x: Array, parameters: tuple[float, int, int], rng: Generator) -> Array:
    """Blur, move pixels about, blur again.

    From the lower right on each pixel takes the colour of one nearby: of the swap that is meant, this is what the published code
    does, and so what its files show.
    """
    import numpy as np
    from scipy.ndimage import gaussian_filter

    sigma, distance, times = parameters
    height, width = x.shape[:2]
    blurred = np.floor(np.clip(gaussian_filter(x, (sigma, sigma, 0), mode="nearest"), 0, 1) * 255) / 255
    rows, columns = np.arange(height - distance, distance, -1), np.arange(width - distance, distance, -1)
    places = (rows[:, None] * width + columns).ravel().tolist()
    sources = list(range(height * width))
    for _ in range(times):
        across, down = rng.integers(-distance, distance, (2, len(places)))
        for place, step in zip(places, (down * width + across).tolist(), strict=True):
            sources[place] = sources[place + step]
    moved = blurred.reshape(-1, 3)[sources].reshape(x.shape)
    glass: Array = gaussian_filter(moved, (sigma, sigma, 0), mode="nearest")
    return glass


def _motion_blur(x: Array, parameters: tuple[float, float], rng: Generator) -> Array:
    return _streak(x, *parameters, rng.uniform(-45, 45))


def _streak(x: Array, radius: float, sigma: float, degrees: float) -> Array:
    """Blur along a line, to one side, with falling weights, as ImageMagick's motion blur; pixels beyond an edge are the edge's."""
    import numpy as np

    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    angle = math.radians(degrees)
    across, down = (np.ceil(steps * part - 0.5).astype(int) for part in (math.cos(angle), math.sin(angle)))
    reach, (height, width) = len(steps), x.shape[:2]
    padded = np.pad(x, ((reach, reach), (reach, reach), *[(0, 0)] * (x.ndim - 2)), mode="edge")
    blurred = np.zeros_like(x)
    for weight, right, lower in zip(weights, across, down, strict=True):
        top, left = reach + lower, reach + right
        blurred += weight * padded[top : top + height, left : left + width]
    return blurred


def _zoom_blur(x: Array, parameters: tuple[float, float], _: Generator) -> Array:
    import numpy as np

    factors = np.arange(1, *parameters)  # as published, the end often among them
    blurred: Array = (x + sum(_zoomed(x, factor) for factor in factors)) / (len(factors) + 1)
    return blurred


def _zoomed(x: Array, factor: float) -> Array:
    """Enlarge the middle of an image (bilinear), and trim it to the size that it had."""
    import numpy as np

    for axis in (0, 1):
        size = x.shape[axis]
        part = math.ceil(size / factor)
        first, enlarged = (size - part) // 2, round(part * factor)
        trim = (enlarged - size) // 2
        places = first + (np.arange(size) + trim) * ((part - 1) / max(enlarged - 1, 1))
        low = np.minimum(places.astype(int), size - 1)
        share = (places - low).reshape([-1 if each == axis else 1 for each in range(x.ndim)])
        x = x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, size - 1), axis) * share
    return x


def _snow(x: Array, parameters: tuple[float, ...], rng: Generator) -> Array:
    """Whiten the image, and add streaks of snow that fall in two directions."""
    import numpy as np

    mean, deviation, zoom, threshold, radius, sigma, share = parameters
    flakes = _zoomed(rng.normal(mean, deviation, x.shape[:2]), zoom)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    flakes = _streak(flakes, radius, sigma, rng.uniform(-135, -45))[..., None]
    gray = (x @ np.array(GRAY))[..., None]
    whitened = share * x + (1 - share) * np.maximum(x, gray * 1.5 + 0.5)
    snowed: Array = whitened + flakes + np.rot90(flakes, 2)
    return snowed


def _frost(x: Array, parameters: tuple[float, float], rng: Generator) -> Array:
    """Lay frost over the image; the published code has photographs of it, this one draws it."""
    of_image, of_frost = parameters
    return of_image * x + of_frost * frost(x.shape[0], x.shape[1], rng)


def frost(height: int, width: int, rng: Generator) -> Array:
    """Draw frost on a pane, ``(height, width, 3)``: feathers of ice that grow from many places, on a cloudy ground."""
    import numpy as np
    from PIL import Image as Images
    from PIL import ImageDraw
    from scipy.ndimage import gaussian_filter

    long = max(height, width)
    sheet = Images.new("L", (width, height))
    draw = ImageDraw.Draw(sheet)
    for _ in range(max(height * width * 90 // LARGE**2, 20)):
        place, angle = rng.uniform((0, 0), (width, height)), rng.uniform(0, 2 * math.pi)
        length, light = rng.uniform(0.1, 0.45) * long, int(rng.integers(70, 256))
        for step in np.arange(0, length, max(long / 56, 1)):
            root = place + step * np.array([math.cos(angle), math.sin(angle)])
            for side in (-1, 1):  # ice branches at sixty degrees
                turned = angle + side * math.pi / 3
                tip = root + rng.uniform(0.1, 0.5) * (length - step) * np.array([math.cos(turned), math.sin(turned)])
                draw.line([*root, *tip], fill=light, width=1)
        end = place + length * np.array([math.cos(angle), math.sin(angle)])
        draw.line([*place, *end], fill=min(light + 40, 255), width=max(long // 112, 1))
    ice = gaussian_filter(np.asarray(sheet, float) / 255, long / 300)
    ground = plasma(long, 2.0, rng)[:height, :width]
    white = rng.uniform(*FROST_LEVELS) + 0.25 * (ground - ground.mean()) + 0.45 * (ice - ice.mean())
    frosted: Array = np.clip(white[..., None] * np.array(FROST_TINT), 0, 1)
    return frosted


def _fog(x: Array, parameters: tuple[float, float], rng: Generator) -> Array:
    """Add fog, and keep the brightest value what it was."""
    thickness, decay = parameters
    brightest = x.max()
    fogged = x + thickness * plasma(max(x.shape[:2]), decay, rng)[: x.shape[0], : x.shape[1], None]
    scaled: Array = fogged * brightest / (brightest + thickness)
    return scaled


def plasma(side: int, decay: float, rng: Generator) -> Array:
    """Draw a random height field from 0 to 1 by diamonds and squares, on the next power of two of ``side`` at least.

    Each point is the mean of its four neighbours and noise, whose range falls by the square of ``decay`` from scale to scale; the
    field joins at its edges.
    """
    import numpy as np

    step = 1 << max(math.ceil(math.log2(max(side, 2))), 1)
    field, roughness = np.zeros((step, step)), PLASMA_ROUGHNESS

    def mean(*neighbours: Array) -> Array:
        total: Array = sum(neighbours) / 4  # type: ignore[assignment]
        return total + roughness * rng.uniform(-roughness, roughness, total.shape)

    while step >= 2:
        half = step // 2
        corners = field[::step, ::step]
        right, below = np.roll(corners, -1, 1), np.roll(corners, -1, 0)
        centres = mean(corners, right, below, np.roll(below, -1, 1))
        field[half::step, half::step] = centres
        field[::step, half::step] = mean(corners, right, centres, np.roll(centres, 1, 0))
        field[half::step, ::step] = mean(corners, below, centres, np.roll(centres, 1, 1))
        step, roughness = half, roughness / decay
    field -= field.min()
    heights: Array = field / field.max()
    return heights


def _brightness(x: Array, more: float, _: Generator) -> Array:
    """Raise the value of HSV, the largest channel, and keep hue and saturation."""
    import numpy as np

    value = x.max(2, keepdims=True)
    raised = np.minimum(value + more, 1)
    brighter: Array = np.where(value > 0, x * (raised / np.maximum(value, 1e-12)), raised)
    return brighter


def _contrast(x: Array, left: float, _: Generator) -> Array:
    means = x.mean((0, 1))
    lowered: Array = (x - means) * left + means
    return lowered


def _elastic_transform(x: Array, parameters: tuple[float, float, float], rng: Generator) -> Array:
    """Move three corners of a square in the middle, and all with them, then each pixel by a smooth random field."""
    import numpy as np
    from scipy.ndimage import gaussian_filter, map_coordinates

    height, width = x.shape[:2]
    unit = min(height, width) if min(height, width) <= MAX_SMALL else 1
    strength, sigma, shift = (each * unit for each in parameters)
    middle, reach = np.array([width // 2, height // 2]), min(height, width) // 3
    before = middle + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    after = before + rng.uniform(-shift, shift, before.shape)
    back = np.linalg.solve(np.column_stack([after, np.ones(3)]), before)  # (3, 2): where a pixel comes from
    down, across = np.mgrid[:height, :width].astype(float)
    sources = np.stack([across, down, np.ones_like(across)], -1) @ back

    def sampled(image: Array, columns: Array, rows: Array, mode: str) -> Array:
        channels = [map_coordinates(image[..., c], [rows, columns], order=1, mode=mode) for c in range(3)]
        return np.stack(channels, -1)

    moved = sampled(x, sources[..., 0], sources[..., 1], "mirror")
    fields = [
        strength * gaussian_filter(rng.uniform(-1, 1, (height, width)), sigma, mode="reflect", truncate=3)
        for _ in range(2)
    ]
    return sampled(moved, across + fields[0], down + fields[1], "reflect")


def _pixelate(image: Image.Image, share: float) -> Image.Image:
    from PIL.Image import Resampling

    width, height = (max(int(side * share), 1) for side in image.size)
    return image.resize((width, height), Resampling.BOX).resize(image.size, Resampling.BOX)


def _jpeg_compression(image: Image.Image, quality: int) -> Image.Image:
    from PIL import Image as Images

    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Images.open(file).convert("RGB")


ON_IMAGES: dict[str, Callable[..., Any]] = {"pixelate": _pixelate, "jpeg_compression": _jpeg_compression}
ON_PIXELS: dict[str, Callable[..., Any]] = {
    "gaussian_noise": _gaussian_noise, "shot_noise": _shot_noise, "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur, "glass_blur": _glass_blur, "motion_blur": _motion_blur, "zoom_blur": _zoom_blur,
    "snow": _snow, "frost": _frost, "fog": _fog, "brightness": _brightness, "contrast": _contrast,
    "elastic_transform": _elastic_transform,
}  # fmt: skip
