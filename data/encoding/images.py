"""Opens images of unknown origin: bounded in size, turned upright, as RGB. Says why an image cannot be used."""

from __future__ import annotations

import io
import os
import re
import warnings
from pathlib import Path
from typing import Any

from data.encoding.request import missing_package
from data.encoding.wording import one_line

# Larger images are refused before they are decoded. 64 million pixels take 192 MiB as RGB.
MOST_PIXELS = 1 << 26
MOST_BYTES = 1 << 28
# Models that scale the shorter side to 224 pixels would make an enormous picture of a narrow strip.
_MOST_TIMES = 100
# A JPEG is decoded at a half or a quarter of its size if both sides keep as many pixels. Models read 224 to 512.
_LONG_SIDE = 2048


ADDRESS = (
    r"(?i)^\s*(?:(?:https?|ftp|s3|gs|gcs|hdfs|azure|abfss?|data|file)://|data:image/|//[^/\s]+/|www\.[^/\s]+\.[^/\s]+/)"
)


class UnusableImage(Exception):
    """An image that has no vector; the message is the reason."""


def open_image(source: str | bytes, folder: Path | None) -> Any:
    """Return an image as a `PIL.Image` in mode RGB.

    The orientation in EXIF is applied, and transparent pixels become white. Of an animation, the first frame is read.

    Args:
        source: the path of a file, or the bytes of one.
        folder: the folder that relative paths start from; None: the current one.

    Raises:
        UnusableImage: there is no such file, it is not an image, it is damaged, or it is too large.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ModuleNotFoundError:
        raise missing_package("pillow", "images") from None
    opened = io.BytesIO(source) if isinstance(source, bytes) else _file(source, folder)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(opened) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise UnusableImage(f"too large: {width} x {height} pixels, at most {MOST_PIXELS:,} are read")
            if max(width, height) > _MOST_TIMES * min(width, height):
                raise UnusableImage(f"too long: {width} x {height} pixels, at most {_MOST_TIMES} times as long as wide")
            if image.format == "JPEG":
                image.draft("RGB", (_LONG_SIDE, _LONG_SIDE))
            image.load()
            return _opaque(ImageOps.exif_transpose(image))
    except UnusableImage:
        raise
    except UnidentifiedImageError:
        raise UnusableImage("not an image in a known format") from None
    except Image.DecompressionBombError:
        raise UnusableImage(f"too large: at most {MOST_PIXELS:,} pixels are read") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of every kind for damaged files
        raise UnusableImage(f"damaged: {type(error).__name__}: {one_line(error, 120)}") from None


def _file(path: str, folder: Path | None) -> io.BytesIO:
    """Return the content of a file. Reading it whole keeps network file systems from many small reads."""
    if re.match(ADDRESS, path):  # of a table with bytes; other tables are refused before
        raise UnusableImage("an address, and nothing is downloaded here")
    full = os.path.join(folder, path) if folder else path
    try:
        if (size := os.path.getsize(full)) > MOST_BYTES:
            raise UnusableImage(f"too large: {size:,} bytes, at most {MOST_BYTES:,} are read")
        if not os.path.isfile(full):
            raise UnusableImage("not a file")
        if not size:
            raise UnusableImage("an empty file")
        with open(full, "rb") as file:
            return io.BytesIO(file.read())
    except FileNotFoundError:
        raise UnusableImage("no such file") from None
    except (OSError, ValueError) as error:
        raise UnusableImage(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _opaque(image: Any) -> Any:
    """Return an image in mode RGB, with white behind what is transparent."""
    from PIL import Image

    if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):  # convert("RGB") would cut values above 255 off
        import numpy as np

        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if image.mode.startswith("I") else max(float(values.max(initial=0.0)), 1.0)
        image = Image.fromarray((values.clip(0, top) * (255.0 / top)).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")
