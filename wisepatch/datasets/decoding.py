"""Open image files: in the formats that are listed here, and no others, as 8-bit RGB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

# Pillow knows thirty more by their first bytes, whatever a file is called; for one of them, EPS, it starts another program.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF", "AVIF", "JPEG2000")
TGA = ".tga"  # has no first bytes of its own: other files would be taken for it
HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
COMMON_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
)  # of published sets
SUFFIXES = COMMON_SUFFIXES | {
    ".jpe", ".jfif", ".mpo", ".apng", ".pbm", ".pnm", ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", TGA,
}  # fmt: skip
RAW_SUFFIXES = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2",
    ".rwl", ".sr2", ".srf", ".srw", ".x3f",
})  # fmt: skip
OTHER_SUFFIXES = frozenset({
    ".ai", ".cur", ".dcm", ".dds", ".dib", ".djvu", ".emf", ".eps", ".exr", ".fits", ".hdr", ".icns", ".ico", ".jxl", ".jxr",
    ".pcx", ".pdf", ".ps", ".psb", ".psd", ".sgi", ".svg", ".wmf", ".xcf", ".xpm",
})  # fmt: skip
MAX_RESIZED_PIXELS = (
    1 << 26
)  # 200 MB as RGB; of a model that sees 224 pixels, an image 1,300 times as long as it is wide
ORIENTATION = 0x0112  # the EXIF tag


@dataclass(frozen=True)
class ResizeCheck:
    """Refuse an image that takes all memory when its shorter side is resized to ``side`` pixels."""

    side: int

    def __call__(self, image: Any) -> Any:
        """Return the image. Raises :class:`ValueError`."""
        short, long = sorted(image.size)
        if short < 1 or self.side * self.side * long > MAX_RESIZED_PIXELS * short:
            width, height = image.size
            raise ValueError(
                f"it is {width} x {height} pixels, too narrow to be resized to {self.side} pixels along its shorter side"
            )
        return image


# A user's own images are held to the size of most models, so that one that none can see is said before a training.
NARROWEST = ResizeCheck(224)


@cache
def reads_heif() -> bool:
    """Tell whether HEIC files can be read, and make Pillow read them: with the package pillow-heif."""
    if find_spec("pillow_heif") is None:
        return False
    import_module("pillow_heif").register_heif_opener()
    return True


def _formats(suffix: str) -> tuple[str, ...]:
    heif = ("HEIF",) if suffix in HEIF_SUFFIXES and reads_heif() else ()
    return (*FORMATS, *heif, *(("TGA",) if suffix == TGA else ()))


def reason_not_read(name: str, path: str) -> str | None:
    """Return why a file is no image that can be read, or ``None``; opened is only one whose suffix does not say."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 -- of a million names
    if suffix in SUFFIXES or (suffix in HEIF_SUFFIXES and reads_heif()):
        return None
    if suffix in HEIF_SUFFIXES:
        return "HEIC, which takes the package pillow-heif"
    if suffix in RAW_SUFFIXES:
        return "a camera's raw format"
    if _opens(path):
        return None
    return "an image in a format that is not read: save it as PNG" if suffix in OTHER_SUFFIXES else "no image"


def _opens(path: str) -> bool:
    import warnings

    from PIL import Image

    try:
        if not os.path.getsize(path):  # noqa: PTH202 -- of a million; those of /proc may block, too
            return False
        with warnings.catch_warnings(), open(path, "rb") as file:  # noqa: PTH123 -- Pillow would leave it open
            warnings.simplefilter("ignore")
            Image.open(file, formats=FORMATS).close()
            return True
    except Exception:  # noqa: BLE001 -- whatever Pillow raises for a file that is none
        return False


def read_rgb(path: Path | str, *, as_seen: bool = False, managed: bool = False) -> Any:
    """Decode an image file as 8-bit RGB. Raises :class:`ValueError` with the reason for whatever cannot be decoded.

    With ``as_seen`` it is what a viewer shows: turned as its EXIF orientation says, transparent parts white. With ``managed``
    colours are converted to sRGB from the profile that the file brings, where it can be used.
    """
    with _opened(path) as opened:
        if as_seen:
            NARROWEST(opened)
        profile = opened.info.get("icc_profile") if managed else None
        image = _as_seen(opened) if as_seen else opened
        return _in_srgb(image, profile) if profile else _rgb(image)


def check_header(path: Path | str) -> None:
    """Read the header of an image file alone. Raises :class:`ValueError` as :func:`read_rgb` does."""
    with _opened(path) as opened:
        NARROWEST(opened)


@contextmanager
def _opened(path: Path | str) -> Iterator[Any]:
    """Open an image file; whatever Pillow raises within is a :class:`ValueError` with the reason."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=_formats(Path(path).suffix.lower())) as opened:
            yield opened
    except FileNotFoundError:
        raise ValueError("it is missing") from None
    except UnidentifiedImageError:
        if not Path(path).stat().st_size:
            raise ValueError("it is empty") from None
        raise ValueError(f"it is no image, or of another format than {', '.join(FORMATS)}") from None
    except MemoryError:
        raise
    except Exception as error:
        # For broken files Pillow raises OSError, SyntaxError, ValueError, struct.error, IndexError and more.
        raise ValueError(str(error).replace(str(path), Path(path).name) or type(error).__name__) from error


def as_seen(image: Any) -> Any:
    """Return an opened image as 8-bit RGB as a viewer shows it: turned upright, transparent parts white.

    Raises :class:`ValueError` with the reason for whatever cannot be decoded.
    """
    try:
        return _rgb(_as_seen(image))
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error


def orientation(image: Any) -> int:
    """Return the EXIF orientation of an opened image, 1 (upright) to 8; 1 where it has none that can be read."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001 -- a damaged EXIF block does not spoil the picture
        return 1
    return value if value in range(1, 9) else 1


def is_turned(path: Path | str) -> bool:
    """Tell whether an image file has an EXIF orientation other than upright; only its head is read. False for a broken one."""
    from PIL import Image

    try:
        with Image.open(path, formats=_formats(Path(path).suffix.lower())) as image:
            return orientation(image) != 1
    except Exception:  # noqa: BLE001 -- whatever Pillow raises; reading the image names it
        return False


def _as_seen(image: Any) -> Any:
    from PIL import Image

    image.load()  # which turns a TIFF and takes its orientation away
    turn = orientation(image)
    if getattr(image, "has_transparency_data", False):
        colours = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(colours, mask=colours.getchannel("A"))
    return image.transpose(TURNS[turn]) if turn in TURNS else image


# What undoes an orientation, by the numbers of Pillow's Image.Transpose.
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}


def _rgb(image: Any) -> Any:
    """Convert any image to 8-bit RGB; 16-bit ones are scaled, others with more than 8 bits a channel are refused."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # Pillow scales those to 16 bits
        import numpy as np
        from PIL import Image

        image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are of mode {image.mode!r}, whose range is unknown; save it with 8 or 16 bits")
    if image.mode == "RGB":  # convert() would copy it
        image.load()
        return image
    if image.mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    return image.convert("RGB")


def _in_srgb(image: Any, profile: bytes) -> Any:
    from PIL import ImageCms

    try:
        source, target = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (
        ImageCms.PyCMSError,
        OSError,
        TypeError,
        ValueError,
    ):  # broken, or of another kind of colours than the image
        return _rgb(image)


@cache
def forbid_other_programs() -> None:
    """Keep Pillow from starting Ghostscript in this process, also where another library opens the images."""
    from PIL import EpsImagePlugin

    EpsImagePlugin.gs_binary = False
