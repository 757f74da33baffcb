"""Open image files: in the formats that are listed here, and no others, as 8-bit RGB."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

# Pillow knows forty more by their first bytes, whatever a file is called; for one of them, EPS, it starts another program.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
MAX_RESIZED_PIXELS = (
    1 << 26
)  # 200 MB as RGB; of a model that sees 224 pixels, an image 1,300 times as long as it is wide


@dataclass(frozen=True)
class ResizeCheck:
    """Refuse an image that is that takes all memory when its shorter side is resized to ``side`` pixels."""

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


def read_rgb(path: Path | str) -> Any:
    """Decode an image file as 8-bit RGB. Raises :class:`ValueError` with the reason for whatever cannot be decoded."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=FORMATS) as opened:
            return _rgb(opened)
    except FileNotFoundError:
        raise ValueError("it is missing") from None
    except UnidentifiedImageError:
        raise ValueError(f"it is no image, or of another format than {', '.join(FORMATS)}") from None
    except MemoryError:
        raise
    except Exception as error:
        # For broken files Pillow raises OSError, SyntaxError, ValueError, struct.error, IndexError and more.
        raise ValueError(str(error).replace(str(path), Path(path).name) or type(error).__name__) from error


def _rgb(image: Any) -> Any:
    """Convert any image to 8-bit RGB; 16-bit ones are scaled, others with more than 8 bits a channel are refused."""
    if image.mode.startswith("I;16"):
        import numpy as np
        from PIL import Image

        image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are of mode {image.mode!r}, whose range is unknown; save it with 8 or 16 bits")
    if image.mode == "RGB":  # convert() would copy it
        image.load()
        return image
    return image.convert("RGB")


@cache
def forbid_other_programs() -> None:
    """Keep Pillow from starting Ghostscript in this process, also where another library opens the images."""
    from PIL import EpsImagePlugin

    EpsImagePlugin.gs_binary = False
