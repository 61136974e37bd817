"""A whole HTML file, without scripts, links or images, and how a job recognises a page that it wrote earlier."""

from __future__ import annotations

from pathlib import Path

from experiments.page.markup import Markup, element
from experiments.page.style import STYLE

_NOTHING_LOADS = "default-src 'none'; style-src 'unsafe-inline'"
_START = "<!DOCTYPE html>"


def document(title: str, generator: str, *content: str, more_style: str = "") -> str:
    """Return the text of an HTML file.

    Args:
        title: the page's name, in the browser's tab and as the first heading.
        generator: what wrote the page; see `is_page`.
        content: what follows the first heading.
        more_style: rules of this kind of page, after those of all pages.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="generator", content=generator),
        element("meta", http_equiv="Content-Security-Policy", content=_NOTHING_LOADS),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(STYLE + more_style)),
    )
    body = element("body", element("h1", title), *content)
    return f"{_START}\n{element('html', head, body, lang='en')}\n"


def is_page(beginning: str, generator: str) -> bool:
    """Return whether a file with this beginning was written by `document` for this generator."""
    return beginning.startswith(_START) and str(element("meta", name="generator", content=generator)) in beginning


def holds_page(path: Path, generator: str) -> bool:
    """Return whether a file is a page of this generator; False if it cannot be read."""
    try:
        with path.open("rb") as file:
            return is_page(file.read(1000).decode(errors="replace"), generator)
    except OSError:
        return False
