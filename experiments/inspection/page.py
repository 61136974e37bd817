"""The report about a dataset as one HTML page, without scripts, links or images; pictures are drawn as inline SVG."""

from __future__ import annotations

from experiments.inspection.facts import DatasetFacts
from experiments.inspection.pictures import PICTURE_STYLE, bar_picture, curve_picture
from experiments.inspection.report import BarPicture, Cell, CurvePicture, Part, Table, report
from experiments.page.document import document
from experiments.page.markup import Markup, element
from experiments.page.titles import title_of

GENERATOR = "mdsrec dataset inspection"
_LONGEST_WHOLE = len("2020-12-31")
_STYLE = """
/* A table that is wider than the window scrolls in its own box, whose edge is then shaded. */
.scroll { overflow-x: auto; max-width: 100%; background:
  linear-gradient(to left, var(--page) 1.5rem, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--line), transparent) right / 1rem 100% no-repeat scroll; }
.scroll th, .scroll td { overflow-wrap: break-word; } th { vertical-align: bottom; } td { vertical-align: top; }
td.text { max-width: 34rem; } td code { display: inline-block; overflow-wrap: anywhere; }
@media (max-width: 40rem) { table { font-size: .8rem; } th, td { padding-right: .5rem; } }
caption { padding-top: .75rem; }
.card h2 { margin-top: 0; } section > ul { margin-bottom: 0; }
figure { margin: 0 0 1rem; max-width: 46rem; } figcaption { font-weight: 600; margin-bottom: .25rem; }
"""


def page(facts: DatasetFacts) -> str:
    """Return the text of the HTML file."""
    sections = [
        element("section", element("h2", section.title), *map(_part, section.parts)) for section in report(facts)
    ]
    return document(
        "A dataset before training",
        GENERATOR,
        element("p", "Dataset ", element("code", facts.path)),
        _surprises(facts),
        *sections,
        element("p", f"Fingerprint {facts.fingerprint}. Made by jobs/inspect_data.py.", class_="soft small"),
        more_style=_STYLE + PICTURE_STYLE,
    )


def _surprises(facts: DatasetFacts) -> Markup:
    found = [element("li", element("strong", one.what), " ", one.next_move) for one in facts.surprises]
    content = element("ul", *found) if found else element("p", "Nothing stands out.")
    return element("section", element("h2", "What would be surprising"), content, class_="card")


def _part(part: Part) -> Markup:
    if isinstance(part, str):
        return element("p", part)
    if isinstance(part, BarPicture):
        return _figure(part.caption, bar_picture(part.bars))
    if isinstance(part, CurvePicture):
        return _figure(part.caption, curve_picture(part.points, part.x_name, part.y_name))
    return _table(part)


def _figure(caption: str, picture: Markup) -> Markup:
    return element("figure", element("figcaption", caption), picture)


def _table(table: Table) -> Markup:
    caption = [element("caption", element("bdi", table.caption))] if table.caption else []
    head = []
    if any(table.headers):
        cells = [
            element("th", name, scope="col", class_="number") if column in table.right else element("th", name)
            for column, name in enumerate(table.headers)
        ]
        head = [element("thead", element("tr", *cells))]
    rows = [
        element("tr", *(_cell(cell, column in table.right) for column, cell in enumerate(row))) for row in table.rows
    ]
    return element("div", element("table", *caption, *head, element("tbody", *rows)), class_="scroll")


def _cell(cell: Cell, is_right: bool) -> Markup:
    if isinstance(cell, str):
        if is_right:
            return element("td", cell, class_="number")
        # A hyphen would break a date.
        return element("td", cell, class_="whole") if len(cell) <= _LONGEST_WHOLE else element("td", cell)
    if cell.text is None:
        return element("td", element("bdi", cell.id))
    name = element("bdi", title_of(cell.text), title=cell.text)
    return element("td", name, " ", element("code", element("bdi", cell.id)), class_="text")
