"""The section of a case page that shows users: their history, their best items, and the parts of the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.case_page.cases import CaseStudy, Offer, UserCase
from experiments.case_page.labels import channel_word, item_line, tag
from experiments.page.markup import Markup, element
from experiments.page.style import NUM_COLORS


@dataclass(frozen=True)
class Axis:
    """The common scale of one user's bars: the values at its left and right end. It always includes 0."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Return the place of a value, in percent from the left."""
        return 100 * (value - self.low) / (self.high - self.low)


def axis_of(offers: Sequence[Offer]) -> Axis:
    """Return a scale that holds all parts of these offers."""
    parts = [part for offer in offers for part in offer.parts]
    low, high = min(0.0, *parts), max(0.0, *parts)
    return Axis(low, high if high > low else low + 1)


def user_section(study: CaseStudy) -> list[Markup]:
    """Return the section: heading, rule, legend and the users."""
    several = len(study.channels) > 1
    said = (
        "A score is the sum of its parts, and each bar is one part. Scores have no unit: only the differences between "
        "items matter."
        if several
        else ""
    )
    old = (
        "Items that a person has bought before are left out of the lists."
        if study.hides_history
        else "Items that a person has bought before may be in the lists again; they are marked “bought before”."
    )
    weights = ", ".join(f"{channel_word(channel)} {channel.weight:g}" for channel in study.channels)
    times = f"The bars include the weights of the parts: {weights}." if several else ""
    legend = " ".join(filter(None, [said, times, old]))
    return [
        element("h2", "People, and the items that the system ranks first for them"),
        element("p", study.user_rule, class_="soft small"),
        element("p", legend, class_="soft small"),
        *(_user(case, study) for case in study.users),
    ]


def _user(case: UserCase, study: CaseStudy) -> Markup:
    axis = axis_of([case.next_offer, *case.best])
    several = len(study.channels) > 1
    earlier = (
        [element("p", f"… and {case.num_earlier:,} earlier ones.", class_="soft small")] if case.num_earlier else []
    )
    ranks = [f"place {case.next_offer.rank:,} of {study.num_items:,} by the whole score"]
    if several:
        names = [channel_word(channel) for channel in study.channels]
        ranks += [f"{rank:,} by {name} alone" for name, rank in zip(names, case.alone_ranks, strict=True)]
    offers = [_offer(offer, study, axis) for offer in case.best]
    alone = [_alone(number, case, study) for number in range(len(study.channels))] if several else []
    return element(
        "section",
        element("h3", "Person ", element("bdi", case.user)),
        element("h4", "Had bought (most recent last)"),
        element("ul", *(element("li", item_line(item)) for item in case.history)),
        *earlier,
        element("h4", "Really bought next"),
        element("div", item_line(case.next_offer.item), *_bars(case.next_offer, study, axis), class_="next"),
        element("p", f"The system ranked it at {'; '.join(ranks)}.", class_="small"),
        element("h4", f"The {len(offers)} best items by the whole score"),
        element("ol", *offers),
        element("div", *alone, class_="side"),
        class_="card",
    )


def _offer(offer: Offer, study: CaseStudy, axis: Axis) -> Markup:
    inside = [_line(offer), *_bars(offer, study, axis)]
    return element("li", *inside, class_="next") if offer.is_next else element("li", *inside)


def _alone(number: int, case: UserCase, study: CaseStudy) -> Markup:
    """Return the best items by one channel alone."""
    name = channel_word(study.channels[number])
    rows = [element("li", _line(offer), class_="next" if offer.is_next else "") for offer in case.alone[number]]
    return element(
        "div",
        element("h4", f"The {len(rows)} best items by {name} alone"),
        element("ol", *rows),
        element("p", f"The item that was really bought is at place {case.alone_ranks[number]:,}.", class_="soft small"),
    )


def _line(offer: Offer) -> Markup:
    tags = [tag("★ really bought next", "tag hit")] * offer.is_next + [tag("bought before")] * offer.is_old
    return item_line(offer.item, *tags)


def _bars(offer: Offer, study: CaseStudy, axis: Axis) -> list[Markup]:
    """Return a bar for each part of the score, and the sum. Bars start at zero; negative ones point left."""
    bars = []
    for number, (channel, part) in enumerate(zip(study.channels, offer.parts, strict=True)):
        left, right = sorted((axis.at(0), axis.at(part)))
        fill = element(
            "span", class_=f"fill c{number % NUM_COLORS}", style=f"left:{left:.2f}%;width:{right - left:.2f}%"
        )
        zero = element("span", class_="zero", style=f"left:{axis.at(0):.2f}%")
        track = element("span", fill, zero, class_="track")
        value = element("span", f"{part:.2f}", class_="number")
        bars.append(element("div", element("span", channel_word(channel)), track, value, class_="bar"))
    if len(offer.parts) > 1:
        whole = element("span", f"{offer.score:.2f}", class_="number")
        bars.append(element("div", element("span", "whole score"), element("span"), whole, class_="bar soft"))
    return bars
