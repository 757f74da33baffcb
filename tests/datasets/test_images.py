"""Files of images: the formats that are read, and everything that can be wrong with one."""

import io
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from tests.fuzzing import damaged
from wisepatch.datasets.folder_or_csv import FileSamples
from wisepatch.datasets.images import FORMATS, read_rgb
from wisepatch.errors import DataError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))


def encoded(form, mode="RGB", **options):
    file = io.BytesIO()
    PICTURE.convert(mode).save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", FORMATS)
def test_listed_formats_are_read_whatever_the_file_is_called(tmp_path, form):
    (tmp_path / "a.jpg").write_bytes(encoded(form))
    image = read_rgb(tmp_path / "a.jpg")
    assert (image.mode, image.size) == ("RGB", (7, 9))


@pytest.mark.parametrize("form", ["EPS", "ICO", "PCX", "TGA", "SGI", "DDS", "PDF", "BLP", "PALM"])
def test_other_formats_are_refused_under_the_name_of_a_picture(tmp_path, monkeypatch, form):
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    mode = "P" if form == "BLP" else "L" if form == "PALM" else "RGB"
    try:
        data = encoded(form, mode)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {form}")
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.png cannot be read: it is no image, or of another format than JPEG, PNG"):
        FileSamples([(tmp_path / "a.png", 0)])[0]


def png_chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png_of(width, height):
    """A small file that promises an image of this size."""
    header = png_chunk(b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x01\0\0\0\0")
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (0, 5)])
def test_a_decompression_bomb_is_named_and_not_decoded(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png_of(*size))
    with pytest.raises(DataError, match=r"a\.png cannot be read: "):
        FileSamples([(tmp_path / "a.png", 0)])[0]


def test_texts_in_a_png_that_take_all_memory_are_not_read(tmp_path):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("key", "a" * 70_000_000, zip=True)
    PICTURE.save(tmp_path / "a.png", pnginfo=texts)
    with pytest.raises(DataError, match=r"a\.png cannot be read: Decompressed data too large"):
        FileSamples([(tmp_path / "a.png", 0)])[0]


def test_boxes_outside_and_transforms_that_refuse_are_named(tmp_path):
    PICTURE.save(tmp_path / "a.png")

    def refuse(image):
        raise ValueError("too small")

    with pytest.raises(DataError, match=r"a\.png cannot be read: too small"):
        FileSamples([(tmp_path / "a.png", 0)], refuse)[0]
    with pytest.raises(DataError, match=r"a\.png cannot be read: "):
        FileSamples([(tmp_path / "a.png", 0)], boxes=[(5, 5, 1, 1)])[0]


whole = [encoded(form) for form in FORMATS] + [
    encoded("TIFF", compression="tiff_lzw"),
    encoded("PNG", "I;16"),
    encoded("GIF", "P"),
]


@given(st.sampled_from(whole).flatmap(damaged))
@pytest.mark.filterwarnings("ignore")  # Pillow's, about odd metadata
def test_fuzzed_pictures_give_pixels_or_a_value_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzzed.png"
    path.write_bytes(data)
    with suppress(ValueError):
        assert read_rgb(path).mode == "RGB"
