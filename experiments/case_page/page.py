"""Turn the content of a case page into one HTML file, without scripts, links or images."""

from __future__ import annotations

from distributed.inference.channel_parts import COOCCURRENCE
from experiments.case_page.cases import CaseStudy, ItemCase, RelationList
from experiments.case_page.labels import channel_word, item_line, joined, relation_word, tag
from experiments.case_page.user_section import user_section
from experiments.page.document import document
from experiments.page.markup import Markup, element

GENERATOR = "mdsrec case study"


def page(study: CaseStudy) -> str:
    """Return the text of the HTML file."""
    title = "Which items are related, and how the system ranks items for people"
    return document(title, GENERATOR, *_opening(study), *_items(study), *user_section(study), _footer(study))


def _opening(study: CaseStudy) -> list[Markup]:
    """Return three paragraphs that explain the page to a reader who does not know the system."""
    words = [channel_word(channel) for channel in study.channels]
    if study.relations:
        ways = joined([relation_word(name) for name in study.relations], "or")
        idea = (
            f"Two items can be related in several ways ({ways}). These ways disagree, and a person may want something "
            f"different in each. So the system computes a score from each of {joined(words)}, and adds these parts up."
        )
        reading = (
            "The first section shows a few items, each with the items most related to it in every way, side by side. "
            "The second shows a few people: the items that they had bought, the item that they really bought next, and "
            "the items that each part of the score ranks first."
        )
    else:
        idea = (
            f"This run is of the model {study.model}, which reads no relations between items, so none are shown here."
        )
        reading = (
            "Below are a few people: the items that they had bought, the item that they really bought next, and the "
            "items that the system ranks first for them."
        )
    guess = (
        f"This system guesses which of {study.num_items:,} items a person will buy next. It has learned from the "
        f"purchases of {study.num_users:,} people, and it reads the past purchases of that person."
    )
    return [element("p", guess), element("p", idea), element("p", reading)]


def _items(study: CaseStudy) -> list[Markup]:
    if not study.relations:
        return []
    how = (
        f"Each list has up to {study.length} items, the most related first. In the list of a modality, each item has "
        f"the cosine of the two items' features{_injected(study.mu)}. In the list of items bought together, each item "
        "has the graph's weight of the pair: how often, and how close together, the two are in people's training "
        "purchases."
    )
    cases = [_item(case) for case in study.items]
    none = (
        []
        if cases
        else [element("p", "No item of this catalogue has a list for every relation. Name items with --items.")]
    )
    return [
        element("h2", "Items, and the items related to them"),
        element("p", study.item_rule, class_="soft small"),
        element("p", how, class_="soft small"),
        *none,
        *cases,
        *_overlaps(study),
    ]


def _injected(mu: float) -> str:
    """Say what the graph builder added to features before it compared them."""
    return f" (to which the graph builder first added {mu:g} times the features of items bought together)" if mu else ""


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
    """Return a table of how much the relations overlap. It measures the paper's premise that they differ."""
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
        "In common: the number of items in both lists, divided by the number of items in either (Jaccard), averaged "
        "over all items that have both lists. At 100% the two relations would be the same, and their difference would "
        "teach the system nothing."
    )
    return [element("section", table, element("p", said, class_="soft small"), class_="card")]


def _footer(study: CaseStudy) -> Markup:
    at = "" if study.step is None else f", checkpoint of step {study.step:,}"
    return element("p", f"Model {study.model}, run {study.run}{at}. Made by jobs/case_study.py.", class_="soft small")
