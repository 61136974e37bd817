"""Build HTML elements. Text and attributes are always escaped, so data cannot become markup."""

from __future__ import annotations

import html

VOID = frozenset({"meta"})
# Control characters and surrogates, which HTML and UTF-8 forbid, and marks that change the direction of text.
_FORBIDDEN = dict.fromkeys(
    (*range(9), 11, 12, *range(14, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0xD800, 0xE000)), "\ufffd"
)


class Markup(str):
    """Text that is HTML already. Only `element` and constants of the packages with pages may create it."""


def element(kind: str, /, *children: str, **attributes: str) -> Markup:
    """Return `<kind attributes>children</kind>`. Children other than `Markup` are escaped. `class_` means class."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"' for key, value in attributes.items())
    if kind in VOID:
        return Markup(f"<{kind}{written}>")
    inside = "".join(child if isinstance(child, Markup) else escaped(child) for child in children)
    return Markup(f"<{kind}{written}>{inside}</{kind}>")


def escaped(text: str) -> str:
    """Escape text for use in an element or a quoted attribute."""
    return html.escape(text.translate(_FORBIDDEN), quote=True)
