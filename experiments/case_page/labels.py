"""The names of items, relations and channels on a case page."""

from __future__ import annotations

from collections.abc import Sequence

from distributed.inference.channel_parts import COOCCURRENCE
from experiments.case_page.cases import Item
from experiments.page.markup import Markup, element
from experiments.page.titles import title_of
from model.protocol import Channel


def item_line(item: Item, *tags: Markup) -> Markup:
    """Return an item's title with the whole text on hover, its source id, and tags."""
    if item.text is None:
        return element("span", element("bdi", item.id), *_spaced(tags))
    name = element("bdi", title_of(item.text), title=item.text)
    return element("span", name, " ", element("code", element("bdi", item.id)), *_spaced(tags))


def tag(text: str, kind: str = "tag") -> Markup:
    """Return a small label."""
    return element("span", text, class_=kind)


def relation_word(name: str) -> str:
    """Name a relation between items, such as "alike by text"."""
    return name if name == COOCCURRENCE else f"alike by {name}"


def channel_word(channel: Channel) -> str:
    """Name a part of the score: a modality by its own name, any other channel by two words.

    A modality's name has no space, so the names cannot clash.
    """
    return "past purchases" if channel.name == "id" and not channel.is_modality else channel.name


def joined(words: Sequence[str], last: str = "and") -> str:
    """Join words as in "A, B and C"."""
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _spaced(tags: Sequence[Markup]) -> list[str]:
    return [part for one in tags for part in (" ", one)]
