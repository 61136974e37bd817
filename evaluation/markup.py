"""HTML elements whose text and attributes are always escaped: nothing from data becomes markup."""

from __future__ import annotations

import html

VOID = frozenset({"meta"})
# Characters that HTML forbids, and those that would turn the text around them.
_FORBIDDEN = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(127, 160), *range(8234, 8239)), "�")


class Markup(str):
    """Text that is HTML already; only `element` and constants of this package make it."""


def element(name: str, *children: str, **attributes: str) -> Markup:
    """`<name attributes>children</name>`: children that are no `Markup` are escaped, `class_` stands for `class`."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"' for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{written}>")
    inside = "".join(child if isinstance(child, Markup) else escaped(child) for child in children)
    return Markup(f"<{name}{written}>{inside}</{name}>")


def escaped(text: str) -> str:
    """Text as HTML shows it, in an element or a quoted attribute."""
    return html.escape(text.translate(_FORBIDDEN), quote=True)
