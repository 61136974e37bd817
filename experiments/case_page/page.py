"""A page of cases as one HTML file that loads nothing: no scripts, no links, no images."""

from __future__ import annotations

from experiments.case_page.cases import CaseStudy, ItemCase, RelationList
from experiments.case_page.markup import Markup, element
from experiments.case_page.relations import COOCCURRENCE
from experiments.case_page.style import STYLE
from experiments.case_page.users import user_section
from experiments.case_page.words import channel_word, item_line, joined, relation_word, tag

GENERATOR = "mdsrec case study"
_NOTHING_LOADS = "default-src 'none'; style-src 'unsafe-inline'"


def page(study: CaseStudy) -> str:
    """The whole file."""
    title = "Who is related to whom, and what each relation offers"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="generator", content=GENERATOR),
        element("meta", http_equiv="Content-Security-Policy", content=_NOTHING_LOADS),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", STYLE),
    )
    body = element("body", element("h1", title), *_opening(study), *_items(study), *user_section(study), _footer(study))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def is_page(beginning: str) -> bool:
    """Whether a file that begins like this was written from `page`."""
    return (
        beginning.startswith("<!DOCTYPE html>")
        and str(element("meta", name="generator", content=GENERATOR)) in beginning
    )


def _opening(study: CaseStudy) -> list[Markup]:
    """Three sentences for a person who knows nothing of it."""
    words = [channel_word(channel) for channel in study.channels]
    if study.relations:
        ways = joined([relation_word(name) for name in study.relations], "or")
        idea = (
            f"Two items can be related in several ways ({ways}), these ways disagree, and people want something "
            f"different in each: so the system forms one opinion from each of {joined(words)}, and adds them up."
        )
        reading = (
            "First below are a few items, each with its nearest relatives by every relation side by side; then a few "
            "people, with what they had bought, what they really bought next, and which opinion put which item on top."
        )
    else:
        idea = (
            f"This run is of the model {study.model}, which reads no relations between items, so none are shown here."
        )
        reading = (
            "Below are a few people, with what they had bought, what they really bought next, and what was offered."
        )
    guess = (
        f"This system guesses what a person will buy next among {study.num_items:,} items, from what that person and "
        f"{study.num_users:,} people in all bought before."
    )
    return [element("p", guess), element("p", idea), element("p", reading)]


def _items(study: CaseStudy) -> list[Markup]:
    if not study.relations:
        return []
    how = (
        f"Up to {study.length} relatives each, the nearest first. Beside an item alike by a modality stands the cosine "
        f"of the two items' features{_injected(study.mu)}; beside one bought together, the weight of the pair: how "
        "often and how closely the two follow each other in people's training purchases, as the graph holds it."
    )
    cases = [_item(case) for case in study.items]
    none = [] if cases else [element("p", "No item of this catalogue has a list by every relation: name some.")]
    return [
        element("h2", "Items and their relatives"),
        element("p", study.item_rule, class_="soft small"),
        element("p", how, class_="soft small"),
        *none,
        *cases,
        *_overlaps(study),
    ]


def _injected(mu: float) -> str:
    """What the graph builder has done to features before comparing them."""
    return f", to which {mu:g} times those of items bought together was added first" if mu else ""


def _item(case: ItemCase) -> Markup:
    bought = element("p", f"Bought {case.popularity:,} times in training.", class_="soft small")
    lists = element("div", *map(_list, case.lists), class_="side")
    return element("section", element("h3", item_line(case.item)), bought, lists, class_="card")


def _list(found: RelationList) -> Markup:
    measure = "weight" if found.name == COOCCURRENCE else "cosine"
    rows = [
        element(
            "li",
            item_line(relative.item, *(tag(f"also {relation_word(other)}") for other in relative.also_by)),
            " ",
            element("span", f"{measure} {relative.value:.2f}", class_="soft small whole"),
        )
        for relative in found.relatives
    ]
    if found.is_lacking:
        content = element("p", f"This item has no {found.name}.", class_="soft")
    elif not rows:
        content = element("p", "None.", class_="soft")
    else:
        content = element("ol", *rows)
    return element("div", element("h4", relation_word(found.name).capitalize()), content)


def _overlaps(study: CaseStudy) -> list[Markup]:
    """The paper's premise in numbers."""
    rows = [
        element(
            "tr",
            element("td", f"{relation_word(o.first)} / {relation_word(o.second)}"),
            element("td", f"{o.jaccard:.1%}" if o.num_items else "none", class_="number"),
            element("td", f"{o.num_items:,}", class_="number"),
        )
        for o in study.overlaps
    ]
    columns = ("two relations", "in common", "items with both lists")
    head = element("tr", *(element("th", name, scope="col") for name in columns))
    caption = element("caption", "How much two lists of one item have in common, over the whole catalogue")
    table = element("table", caption, element("thead", head), element("tbody", *rows))
    said = (
        "In common: of the items in either of the two lists, the share that is in both (Jaccard), averaged over all "
        "items that have both. 100% would mean that the two relations say the same, and there would be nothing to "
        "learn from their difference."
    )
    return [element("section", table, element("p", said, class_="soft small"), class_="card")]


def _footer(study: CaseStudy) -> Markup:
    at = "" if study.step is None else f", checkpoint of step {study.step:,}"
    return element("p", f"Model {study.model}, run {study.run}{at}. Made by jobs/case_study.py.", class_="soft small")
