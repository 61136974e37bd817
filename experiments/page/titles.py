"""Shortens the texts of items to titles that fit in a line."""

from __future__ import annotations

import textwrap

_TITLE_LENGTH = 80


def title_of(text: str) -> str:
    """Return the beginning of a text, cut at the end of a word."""
    short = textwrap.shorten(text, _TITLE_LENGTH, placeholder=" …")
    return short if short.strip(" …") else " ".join(text.split())[: _TITLE_LENGTH - 1] + "…"
