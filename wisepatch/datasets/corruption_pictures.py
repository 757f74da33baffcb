"""Draw the fifteen common corruptions from their definitions (Hendrycks and Dietterich 2019, arXiv 1903.12261, section 4.1).

Two things differ from the published files: frost is drawn, not photographed, and pictures are not stored as JPEGs afterwards.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wisepatch.datasets.corruption_parameters import LARGE, MAX_SMALL, PARAMETERS
from wisepatch.datasets.decoding import ResizeCheck
from wisepatch.datasets.drawn_weather import frost, plasma

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Array = NDArray[np.float64]  # (height, width, 3) or (height, width), from 0 to 1
    Generator = np.random.Generator

GRAY = (0.299, 0.587, 0.114)  # of ITU-R BT.601


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


def _fog(x: Array, parameters: tuple[float, float], rng: Generator) -> Array:
    """Add fog, and keep the brightest value what it was."""
    thickness, decay = parameters
    brightest = x.max()
    fogged = x + thickness * plasma(max(x.shape[:2]), decay, rng)[: x.shape[0], : x.shape[1], None]
    scaled: Array = fogged * brightest / (brightest + thickness)
    return scaled


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
