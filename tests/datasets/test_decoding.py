"""Files of images: the formats that are read, and everything that can be wrong with one."""

import io
import sys
import zlib
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import BmpImagePlugin, Image, ImageCms, ImageOps, PngImagePlugin

from tests.fuzzing import damaged
from wisepatch.datasets import decoding
from wisepatch.datasets.decoding import FORMATS, is_turned, read_rgb
from wisepatch.datasets.image_files import FileSamples
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
    for as_seen in (False, True):
        with suppress(ValueError):
            assert read_rgb(path, as_seen=as_seen).mode == "RGB"


def corner(image):
    """Where the red quarter of an image is: (column, row)."""
    pixels = np.asarray(image).astype(int)
    red = (pixels[..., 0] - pixels[..., 1]) > 100
    rows, columns = np.nonzero(red)
    return int(columns.mean() > image.width / 2), int(rows.mean() > image.height / 2)


def marked(size=(64, 32)):
    """An image with a red upper left quarter."""
    image = Image.new("RGB", size, "white")
    image.paste((255, 0, 0), (0, 0, size[0] // 2, size[1] // 2))
    return image


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_is_turned_as_its_orientation_says_and_a_published_one_is_not(tmp_path, turn, form):
    exif = Image.Exif()
    exif[0x0112] = turn
    marked().save(tmp_path / "a.jpg", form, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg"))
    seen = read_rgb(tmp_path / "a.jpg", as_seen=True)
    assert (seen.mode, seen.size) == ("RGB", (64, 32) if turn < 5 else (32, 64))
    assert np.array_equal(np.asarray(seen), np.asarray(expected.convert("RGB")))
    assert is_turned(tmp_path / "a.jpg") == (turn != 1)
    if form != "TIFF":  # which Pillow turns itself
        stored = read_rgb(tmp_path / "a.jpg")
        assert (stored.size, corner(stored)) == ((64, 32), (0, 0))


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_means_nothing_is_none(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    marked().save(tmp_path / "a.png", exif=exif)
    assert corner(read_rgb(tmp_path / "a.png", as_seen=True)) == (0, 0)
    assert not is_turned(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore")  # Pillow's
def test_a_damaged_exif_block_does_not_spoil_the_picture(tmp_path):
    marked().save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert corner(read_rgb(tmp_path / "a.jpg", as_seen=True)) == (0, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA", "RGB", "L"])
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "GIF"])
def test_transparent_parts_are_white(tmp_path, mode, form):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 8, 4))
    options = {"lossless": True} if form == "WEBP" else {}
    if mode in ("RGB", "L"):  # one colour is transparent
        image = Image.new(mode, (8, 8), 7)
        image.paste(0, (0, 0, 8, 4))
        options["transparency"] = 7 if mode == "L" else (7, 0, 0)
        if form != "PNG":
            pytest.skip("no such files")
    try:
        (image if mode in ("RGB", "L") else image.convert(mode)).save(tmp_path / "a.png", form, **options)
    except (OSError, ValueError):
        pytest.skip(f"this Pillow writes no {form} of {mode}")
    with Image.open(tmp_path / "a.png") as written:
        if not written.has_transparency_data:
            pytest.skip("its transparency is not stored")
    pixels = np.asarray(read_rgb(tmp_path / "a.png", as_seen=True))
    assert pixels[:4].max() == 0
    assert pixels[4:].min() == 255


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_animated_files_give_their_first_frame(tmp_path, form):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green")]
    options = (
        {"lossless": True} if form == "WEBP" else {"quality": 100, "subsampling": "4:4:4"} if form == "AVIF" else {}
    )
    frames[0].save(tmp_path / "a.img", form, save_all=True, append_images=frames[1:], **options)
    assert np.abs(np.asarray(read_rgb(tmp_path / "a.img", as_seen=True)).astype(int) - (255, 0, 0)).max() <= 3


def colours(mode="RGB"):
    patches = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128)]
    image = Image.new("RGB", (16 * len(patches), 16))
    for number, colour in enumerate(patches):
        image.paste(colour, (16 * number, 0, 16 * number + 16, 16))
    return image.convert(mode), np.asarray(patches)


def patches_of(image):
    return np.asarray(image).astype(int)[8, 8::16]


def test_cmyk_photographs_have_their_colours_also_with_adobes_inverted_marker(tmp_path):
    image, expected = colours()
    for name, options in (("a.jpg", {"quality": 100, "subsampling": 0}), ("a.tif", {})):
        image.convert("CMYK").save(tmp_path / name, **options)
        assert np.abs(patches_of(read_rgb(tmp_path / name)) - expected).max() <= 3
    assert b"Adobe" in (tmp_path / "a.jpg").read_bytes()


def test_lab_is_converted_to_srgb(tmp_path):
    image, expected = colours()
    lab = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.save(tmp_path / "a.tif")
    off = np.abs(patches_of(read_rgb(tmp_path / "a.tif")) - expected)
    assert off[3:].max() <= 1  # greys
    assert off.max() <= 25  # Lab of 8 bits is coarse at the edge of sRGB


@pytest.mark.parametrize("mode", ["P", "1", "L", "HSV", "YCbCr"])
def test_palettes_and_few_bits_have_their_colours(tmp_path, mode):
    image, _ = colours()
    image = image.convert(mode, palette=Image.Palette.ADAPTIVE) if mode == "P" else image.convert(mode)
    try:
        image.save(tmp_path / "a.tif")
    except OSError:
        pytest.skip(f"no file holds {mode}")
    assert np.abs(patches_of(read_rgb(tmp_path / "a.tif")) - patches_of(image.convert("RGB"))).max() <= 3


def test_sixteen_bits_of_grey_and_of_colour_are_scaled(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    expected = ramp / 257
    Image.fromarray(ramp).save(tmp_path / "grey.png")
    Image.fromarray(ramp).save(tmp_path / "grey.tif")
    (tmp_path / "grey.pgm").write_bytes(b"P5 64 64 65535\n" + ramp.astype(">u2").tobytes())
    rows = b"".join(b"\0" + np.repeat(row[:, None], 3, 1).astype(">u2").tobytes() for row in ramp)
    header = png_chunk(b"IHDR", (64).to_bytes(4, "big") * 2 + b"\x10\x02\0\0\0")
    (tmp_path / "colour.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    )
    for name in ("grey.png", "grey.tif", "grey.pgm", "colour.png"):
        for channel in range(3):
            pixels = np.asarray(read_rgb(tmp_path / name)).astype(float)[..., channel]
            assert np.abs(pixels - expected).max() <= 1, name


def test_tga_is_read_under_its_own_suffix_alone(tmp_path):
    PICTURE.save(tmp_path / "a.tga")
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "a.tga")), np.asarray(PICTURE))
    (tmp_path / "a.tga").rename(tmp_path / "a.png")
    with pytest.raises(ValueError, match="it is no image"):
        read_rgb(tmp_path / "a.png")


@pytest.mark.extra
def test_a_phone_s_heic_is_read_upright_where_its_package_is_installed(tmp_path):
    """HEIC files bring their turn with them, and their EXIF orientation, which repeats it, must not turn them again."""
    pytest.importorskip("pillow_heif")
    assert decoding.reads_heif()
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.new("RGB", (64, 32), "red")
    photo.paste("blue", (0, 0, 32, 32))
    photo.save(tmp_path / "IMG_0001.HEIC", "HEIF", exif=exif.tobytes())
    assert decoding.reason_not_read("IMG_0001.HEIC", "") is None
    for as_seen in (True, False):
        pixels = np.asarray(read_rgb(tmp_path / "IMG_0001.HEIC", as_seen=as_seen)).astype(int)
        assert pixels.shape == (64, 32, 3)
        assert np.abs(pixels[:30] - [0, 0, 255]).max() < 30
        assert np.abs(pixels[34:] - [255, 0, 0]).max() < 30


def test_heic_is_read_through_its_package(tmp_path, monkeypatch):
    """A package of this name that registers an opener for HEIF, as pillow-heif does."""

    def register_heif_opener():
        Image.register_open("HEIF", BmpImagePlugin.BmpImageFile, lambda prefix: prefix.startswith(b"BM"))

    monkeypatch.setattr(decoding, "find_spec", lambda name: name)
    monkeypatch.setattr(Image, "ID", [*Image.ID])
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register_heif_opener))
    decoding.reads_heif.cache_clear()
    (tmp_path / "a.heic").write_bytes(encoded("BMP"))
    try:
        assert decoding.reason_not_read("a.heic", "") is None
        assert "HEIF" in decoding._formats(".heic")
        assert read_rgb(tmp_path / "a.heic").size == (7, 9)
    finally:
        decoding.reads_heif.cache_clear()


def iccp(size):
    return png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"\0" * size))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0", b"%PDF-1.7\n%\xe2\xe3", encoded("WEBP")[:60], encoded("AVIF")[:200], encoded("JPEG2000")[:120],
        encoded("GIF")[:30],
        b"\x89PNG\r\n\x1a\n" + encoded("PNG")[8:33] + iccp(80_000_000) + encoded("PNG")[33:],
        encoded("JPEG")[:300], b"RIFF\x10\0\0\0WEBPVP8 ", b"II*\0\xff\xff\xff\xff",
    ],
)  # fmt: skip
def test_what_cannot_be_decoded_is_one_named_line(tmp_path, data):
    (tmp_path / "a.jpg").write_bytes(data)
    for as_seen in (False, True):
        with pytest.raises(DataError, match=r"image .*a\.jpg cannot be read: \S") as caught:
            FileSamples([(tmp_path / "a.jpg", 0)], as_seen=as_seen)[0]
        assert "\n" not in caught.value.message
        assert data or "it is empty" in caught.value.message


def test_whatever_pillow_raises_is_named(tmp_path, monkeypatch):
    PICTURE.save(tmp_path / "a.png")
    for error in (
        OSError("x"),
        SyntaxError("x"),
        ValueError("x"),
        EOFError("x"),
        IndexError("x"),
        KeyError("x"),
        OverflowError("x"),
    ):
        monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(DataError, match=r"a\.png cannot be read: '?x"):
            FileSamples([(tmp_path / "a.png", 0)], as_seen=True)[0]


def test_wide_gamut_colours_are_converted_to_srgb_where_asked_for(tmp_path):
    """A profile whose red and green are swapped shows whether it was used; a broken one is not."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"????", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"????", b"gXYZ", 1)
    for name, profile in (("swapped.png", swapped), ("srgb.png", srgb), ("broken.png", srgb[:200])):
        Image.new("RGB", (8, 8), "red").save(tmp_path / name, icc_profile=profile)
    for name, colour in (("swapped.png", (0, 255, 0)), ("srgb.png", (255, 0, 0)), ("broken.png", (255, 0, 0))):
        pixels = np.asarray(read_rgb(tmp_path / name, as_seen=True, managed=True)).astype(int)
        assert np.abs(pixels - colour).max() <= 2, name
        assert np.asarray(read_rgb(tmp_path / name, as_seen=True))[0, 0].tolist() == [255, 0, 0]
