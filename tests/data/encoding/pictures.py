"""Images of every kind that catalogues hold, sound and broken."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
from PIL import Image

# A pattern whose corners differ, so that a picture on its side or with wrong colours is noticed.
PATTERN = np.zeros((24, 36, 3), np.uint8)
PATTERN[:12, :18] = (250, 10, 10)
PATTERN[:12, 18:] = (10, 250, 10)
PATTERN[12:, :18] = (10, 10, 250)
PATTERN[12:, 18:] = (240, 240, 240)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def sound_pictures() -> dict[str, bytes]:
    """Return the bytes of pictures that all show the pattern, by name."""
    image = Image.fromarray(PATTERN)
    clear = image.convert("RGBA")
    clear.putalpha(Image.fromarray(np.where(PATTERN.sum(2) > 700, 0, 255).astype(np.uint8)))
    side = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a turn by 90 degrees clockwise
    still = image.convert("P", palette=Image.Palette.ADAPTIVE)
    return {
        "plain.png": encoded(image, "PNG"),
        "plain.bmp": encoded(image, "BMP"),
        "plain.jpg": encoded(image, "JPEG", quality=100, subsampling=0),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG", quality=100, subsampling=0),
        "palette.png": encoded(still, "PNG"),
        "palette.gif": encoded(image.quantize(), "GIF", save_all=True, append_images=[Image.new("RGB", image.size)]),
        "clear.png": encoded(clear, "PNG"),
        "clear.webp": encoded(clear, "WEBP", lossless=True),
        "turned.jpg": encoded(side, "JPEG", quality=100, subsampling=0, exif=exif),
    }


def grey_pictures() -> dict[str, bytes]:
    """Return the bytes of pictures without colours; all go from black on the left to white on the right."""
    ramp = np.repeat(np.linspace(0, 255, 36).astype(np.uint8)[None], 24, axis=0)
    return {
        "grey.png": encoded(Image.fromarray(ramp), "PNG"),
        "grey.jpg": encoded(Image.fromarray(ramp), "JPEG", quality=100),
        "grey16.png": encoded(Image.fromarray(ramp.astype(np.uint16) * 257), "PNG"),
        "alpha.png": encoded(Image.fromarray(ramp).convert("LA"), "PNG"),
    }


@functools.cache
def broken_pictures() -> dict[str, tuple[bytes, str]]:
    """Return bytes that are no whole picture, and the reason that is given, by name."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    jpeg, png = encoded(noise, "JPEG"), encoded(noise, "PNG")
    huge = encoded(Image.new("1", (30_000, 30_000)), "PNG")
    long = encoded(Image.new("L", (3000, 2)), "PNG")
    return {
        "cut.jpg": (jpeg[: len(jpeg) // 2], "damaged"),
        "cut.png": (png[: len(png) // 2], "damaged"),
        "header.jpg": (jpeg[:3], "not an image"),
        "text.png": (b"<html>404 not found</html>", "not an image"),
        "empty.png": (b"", "an empty file"),
        "bomb.png": (huge, "too large"),
        "strip.png": (long, "too long"),
    }


def write_pictures(folder: Path, pictures: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in pictures.items():
        (folder / name).write_bytes(content)
