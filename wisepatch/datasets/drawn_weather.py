"""Draw what lies over a picture in bad weather: frost on a pane, and clouds (plasma), of which fog is made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from wisepatch.datasets.corruption_parameters import LARGE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]  # (height, width, 3) or (height, width), from 0 to 1
    Generator = np.random.Generator

PLASMA_ROUGHNESS = 100.0
# As bright and as blue as the published photographs of frost are, on average and the darkest to the brightest.
FROST_LEVELS, FROST_TINT = (0.47, 0.82), (0.89, 1.02, 1.09)


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
