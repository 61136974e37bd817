"""Shortens foreign text, such as a library's error, for one line of ours."""

from __future__ import annotations


def one_line(text: object, most: int) -> str:
    """Return a text in one line, ended after a whole word and with dots if it has more than `most` characters."""
    line = " ".join(str(text).split())
    if len(line) <= most:
        return line
    head, _, _ = line[:most].rpartition(" ")
    return f"{(head or line[:most]).rstrip(' ,;:.(')} ..."
