"""Images of every kind look as they should, and broken ones have a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.encoding.images import UnusableImage, open_image
from tests.data.encoding.pictures import (
    PATTERN,
    broken_pictures,
    encoded,
    grey_pictures,
    sound_pictures,
    write_pictures,
)


@pytest.mark.parametrize("name", sound_pictures())
def test_pictures_of_every_kind_show_the_same(name: str, tmp_path: Path) -> None:
    content = sound_pictures()[name]
    write_pictures(tmp_path, {name: content})
    for image in (open_image(name, tmp_path), open_image(content, None)):
        found = np.asarray(image).astype(int)
        expected = PATTERN.astype(int)
        if name.startswith("clear"):  # white behind what is transparent
            expected = np.where(expected.sum(2, keepdims=True) > 700, 255, expected)
        assert found.shape == expected.shape
        inner = np.ones(expected.shape[:2], bool)
        inner[8:16] = inner[:, 14:22] = False  # JPEG blurs edges
        assert np.abs(found - expected)[inner].max() <= 12


@pytest.mark.parametrize("name", grey_pictures())
def test_grey_pictures_keep_their_brightness(name: str) -> None:
    found = np.asarray(open_image(grey_pictures()[name], None)).astype(int)
    assert found.shape == (24, 36, 3)
    assert np.abs(found - np.linspace(0, 255, 36).astype(int)[None, :, None]).max() <= 3


@pytest.mark.parametrize("name", broken_pictures())
def test_broken_pictures_have_a_reason(name: str, tmp_path: Path) -> None:
    content, reason = broken_pictures()[name]
    write_pictures(tmp_path, {name: content})
    with pytest.raises(UnusableImage, match=f"^{reason}"):
        open_image(name, tmp_path)


def test_a_strip_is_told_how_long_it_may_be() -> None:
    from PIL import Image

    with pytest.raises(UnusableImage, match=r"^too long: 3000 x 10 pixels, at most 100 times as long as wide$"):
        open_image(encoded(Image.new("RGB", (3000, 10)), "PNG"), None)


def test_a_picture_of_one_pixel_is_a_picture() -> None:
    from PIL import Image

    assert open_image(encoded(Image.new("RGB", (1, 1), "red"), "PNG"), None).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("path", "reason"),
    [("none.png", "no such file"), (".", "not a file"), ("a\0b", "cannot be"), ("http://x/a", "an address")],
)
def test_paths_without_a_file_have_a_reason(path: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnusableImage, match=reason):
        open_image(path, tmp_path)


def test_large_photographs_are_read_at_a_part_of_their_size() -> None:
    from PIL import Image

    image = open_image(encoded(Image.new("RGB", (8200, 4200), "blue"), "JPEG"), None)
    assert min(image.size) >= 2048
    assert max(image.size) < 8200
