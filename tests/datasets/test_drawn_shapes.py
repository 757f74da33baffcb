"""Drawn shapes: pictures that the embedded model and the demo tasks depend on, to the byte."""

import hashlib

import numpy as np
import PIL
import pytest

from wisepatch.datasets.drawn_shapes import COLORS, SHAPES, STREAMS, TEXTURES, Scene, background, draw, generator


@pytest.mark.skipif(PIL.__version__ != "13.0.0", reason="another Pillow may draw the edges of polygons otherwise")
def test_pictures_are_drawn_to_the_byte():
    """In the textures that take no sine of an array, whose last bit differs from CPU to CPU."""
    digest = hashlib.sha256()
    for index in range(100):
        scene = Scene(
            ("plain", "speckled", "gridded", "gradient")[index % 4], SHAPES[index // 10], [*COLORS][index % 10]
        )
        digest.update(draw(scene, generator("Shapes", 7, index)).tobytes())
    assert digest.hexdigest()[:16] == "b0883cf2edac3338"


def test_every_texture_is_what_it_was():
    means = [background(texture, generator("Textures", 7, i)).mean() for i, texture in enumerate(TEXTURES)]
    assert TEXTURES[::3] == ("plain", "dotted", "wavy", "concentric")
    assert means == pytest.approx(
        [233.86, 122.11, 154.12, 62.99, 179.55, 166.49, 55.22, 156.66, 159.52, 109.18], abs=0.01
    )


def test_drawn_pictures_depend_on_the_seed_alone():
    scene = Scene("zigzag", "star", "blue")
    first, second = (np.asarray(draw(scene, generator("Shapes", 2, 5))) for _ in range(2))
    assert (first == second).all()
    assert first.shape == (64, 64, 3)
    assert (first != np.asarray(draw(scene, generator("Shapes", 2, 6)))).any()


def test_streams_of_pretraining_and_tasks_never_meet():
    assert len(set(STREAMS.values())) == len(STREAMS)
    draws = {name: generator(name, 0, 0).integers(2**62) for name in STREAMS}
    assert len(set(draws.values())) == len(STREAMS)


def test_every_shape_color_and_texture_can_be_drawn():
    for shape in SHAPES:
        for color in COLORS:
            for texture in TEXTURES:
                assert np.asarray(draw(Scene(texture, shape, color), generator("Shapes", 7))).std() > 5
