"""The report about a dataset as sections of sentences, tables and pictures, from which text and HTML are made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from experiments.inspection.facts import (
    Bar,
    DatasetFacts,
    FeatureFacts,
    ItemExample,
    Spread,
    TimeFacts,
    UserExample,
)
from experiments.inspection.name_pass import SAMPLE as SAMPLED_TEXTS
from experiments.inspection.origin import origin
from experiments.inspection.wording import UNIT_NAMES, as_date, in_words, number, share


@dataclass(frozen=True)
class Named:
    """A cell with an item: its text if there is one, and its source id."""

    id: str
    text: str | None


Cell = str | Named


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows below a line of headers; `right` are the columns that are aligned to the right."""

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    right: Sequence[int] = ()
    caption: str = ""


@dataclass(frozen=True)
class BarPicture:
    """A picture of bars."""

    caption: str
    bars: Sequence[Bar]


@dataclass(frozen=True, kw_only=True)
class CurvePicture:
    """A picture of points (x, y), with logarithmic axes of these names."""

    caption: str
    points: Sequence[tuple[int, int]]
    x_name: str
    y_name: str


Part = str | Table | BarPicture | CurvePicture


@dataclass(frozen=True)
class Section:
    """A heading and what is below it; a plain text is a paragraph."""

    title: str
    parts: Sequence[Part]


def report(facts: DatasetFacts) -> list[Section]:
    """Return the sections of the report, but for the surprises."""
    return [
        Section("What is in it", list(_counts(facts))),
        Section("Histories", list(_histories(facts))),
        Section("Popularity", list(_popularity(facts))),
        Section("Time", list(_times(facts.times, facts))),
        *([Section("Features", list(_features(facts)))] if facts.features else []),
        *([Section("Texts", list(_texts(facts)))] if facts.texts is not None else []),
        Section("A few items", [_item_table(facts.items)]),
        Section("A few users", [_user_table(user, facts.times) for user in facts.users]),
    ]


def _counts(facts: DatasetFacts) -> Iterator[Part]:
    split = facts.split
    yield Table(
        headers=("", ""),
        rows=[
            ("users", number(facts.num_users)),
            ("items", number(facts.num_items)),
            ("interactions", number(facts.num_interactions)),
            ("share of all pairs of user and item", share(facts.density)),
            ("training targets", number(split.train)),
            ("validation targets", number(split.valid)),
            ("test targets", number(split.test)),
        ],
        right=[1],
    )
    yield f"{origin(facts.source)} A target is an item with an earlier one of the same user. {_rule(facts)}"
    untrained = f"{number(facts.popularity.num_untrained)} of {number(facts.num_items)} items have no training"
    targets = f"; {share(split.untrained_test / split.test)} of the test targets are such items" if split.test else ""
    yield f"{untrained} interaction{targets}.{_held_out(facts)}"
    if facts.num_unused:
        items = "1 item has" if facts.num_unused == 1 else f"{number(facts.num_unused)} items have"
        yield f"{items} no interaction at all, in any part; only models with features can recommend them."
    if facts.dropped:
        rows = [(one.words, number(one.count)) for one in facts.dropped]
        yield Table(caption="What preparation left out", headers=("what", "count"), rows=rows, right=[1])
    else:
        yield "Preparation dropped nothing."


def _held_out(facts: DatasetFacts) -> str:
    """Say how many items preparation kept out of training on purpose."""
    cold = facts.split.parameters.get("cold_items")
    count = cold.get("count") if isinstance(cold, dict) else None
    if not isinstance(count, int):
        return ""
    items = "1 item is" if count == 1 else f"{number(count)} items are"
    return f" {items} cold: preparation kept such items out of training (--cold-item-share)."


def _rule(facts: DatasetFacts) -> str:
    split, unit = facts.split, None if facts.times is None else facts.times.unit
    if split.method == "leave-one-out":
        by = f" (given by {split.parameters['given_by']})" if "given_by" in split.parameters else ""
        return f"Leave-one-out{by}: the last item of each user is for test, the one before for validation."
    if split.method == "global-time":
        moments = [split.parameters.get(name) for name in ("valid_from", "test_from")]
        valid, test = (as_date(moment, unit) if isinstance(moment, int) else "?" for moment in moments)
        return f"Split by time: validation begins at {valid}, test at {test}."
    return f"The split's method: {split.method}."


def _histories(facts: DatasetFacts) -> Iterator[Part]:
    history, total = facts.history, facts.num_interactions
    yield _spreads([("interactions of a user", history.lengths)])
    yield BarPicture("Users by the number of their interactions", history.bars)
    yield (
        f"{share(history.num_short / facts.num_users)} of the users have fewer than 3 interactions. In "
        f"{share(facts.repeats.num_repeats / total)} of the interactions the user had the item before, in "
        f"{share(facts.repeats.num_in_a_row / total)} just before."
    )


def _popularity(facts: DatasetFacts) -> Iterator[Part]:
    popularity = facts.popularity
    yield _spreads([("training interactions of an item", popularity.counts)])
    top = "item has" if popularity.num_top == 1 else f"{number(popularity.num_top)} items have"
    yield (
        f"The most popular {top} {share(popularity.top_share)} of the training interactions. The Gini coefficient is "
        f"{popularity.gini:.2f}: 0 means that all items are equally popular, 1 that one item has everything."
    )
    yield CurvePicture(
        caption="Training interactions of the items, the most popular first; both axes are logarithmic",
        points=popularity.curve,
        x_name="place of the item by popularity",
        y_name="training interactions",
    )


def _times(times: TimeFacts | None, facts: DatasetFacts) -> Iterator[Part]:
    if times is None:
        yield "The dataset has no timestamps. The order of a history is that of the source."
        return
    origin = "as the manifest states" if times.is_stated else "as the size of most numbers tells"
    unit = "Their unit is unknown" if times.unit is None else f"They are in {UNIT_NAMES[times.unit]}, {origin}"
    first, last = (as_date(moment, times.unit, with_time=True) for moment in (times.first, times.last))
    numbers = "" if times.unit is None else f" (as numbers, {times.first} to {times.last})"
    yield f"Timestamps go from {first} to {last}{numbers}. {unit}."
    outside = f"; {number(times.num_outside)} are outside of the picture" if times.num_outside else ""
    part = "part of the range" if times.period == "part" else times.period
    yield BarPicture(f"Interactions by {part}{outside}", times.bars)
    if times.gaps is not None:
        gaps = [in_words(value, times.unit) for value in _values(times.gaps)]
        rows = [("time between a user's interactions", *gaps)]
        yield Table(headers=("", *_QUANTILES), rows=rows, right=range(1, 9))
        yield (
            f"{share(times.num_equal / times.num_gaps)} of these gaps are zero. "
            f"{share(times.num_users_at_once / times.num_users_with_gaps)} of the users with several interactions "
            "have all of them at one time. The quantiles of the gaps are exact within 2%."
        )
    if facts.split.test and times.last_training is not None:
        yield (
            f"{share(times.num_test_before / facts.split.test)} of the test targets are earlier than the latest "
            "training interaction. Leave-one-out mixes times like that; --split global-time tests on the future only."
        )


def _features(facts: DatasetFacts) -> Iterator[Part]:
    headers = ("modality", "width", "type", "items that have it", "constant columns", "equal rows in sample")
    rows = [
        (
            one.name,
            number(one.width),
            one.dtype,
            f"{number(one.num_present)} ({share(one.num_present / facts.num_items)})",
            number(one.num_constant_columns),
            f"{number(one.num_duplicates)} of {number(one.num_sampled)}",
        )
        for one in facts.features
    ]
    yield Table(headers=headers, rows=rows, right=(1, 3, 4, 5))
    norms = [(f"norms of {one.name}", one.norms) for one in facts.features if one.norms is not None]
    cosines = [(f"cosines of {one.name}", one.cosines) for one in facts.features if one.cosines is not None]
    if norms:
        yield _spreads([*norms, *cosines])
        yield (
            "Norms are of all rows that are not zero, with quantiles exact within 2%. Cosines are of all pairs of the "
            "rows in a sample, which a fixed seed draws."
        )
    yield from (_encoder(one) for one in facts.features if one.encoder)


def _encoder(one: FeatureFacts) -> Part:
    assert one.encoder is not None
    rows = [(str(name), str(value)) for name, value in one.encoder.items()]
    return Table(caption=f"Encoder of {one.name}, from the manifest", headers=("", ""), rows=rows)


def _texts(facts: DatasetFacts) -> Iterator[Part]:
    texts = facts.texts
    assert texts is not None
    has = share(texts.num_texts / facts.num_items)
    sample = f" of a sample of {number(texts.num_sampled)}" if facts.num_items > SAMPLED_TEXTS else ""
    distinct = f", of which {number(texts.num_distinct)}{sample} are different" if texts.num_texts else ""
    yield f"{number(texts.num_texts)} items ({has}) have a text{distinct}."
    if texts.lengths is not None:
        yield _spreads([("characters of a text", texts.lengths)])
        yield f"{share(texts.num_markup / texts.num_texts)} of the texts hold HTML, such as <b> or &amp;."


def _item_table(items: Sequence[ItemExample]) -> Table:
    rows = [(Named(one.id, one.text), number(one.num_training), one.why) for one in items]
    return Table(headers=("item", "training interactions", "shown because it is"), rows=rows, right=[1])


def _user_table(user: UserExample, times: TimeFacts | None) -> Table:
    shown = f", the latest {len(user.events)}" if len(user.events) < user.length else ""
    rows: list[Sequence[Cell]] = []
    for event in user.events:
        when = [] if times is None or event.timestamp is None else [as_date(event.timestamp, times.unit)]
        rows.append((*when, event.part, Named(event.id, event.text)))
    headers = ("time", "part", "item") if times is not None else ("part", "item")
    caption = f"{user.id}: {user.why} ({number(user.length)} interactions{shown})"
    return Table(caption=caption, headers=headers, rows=rows)


_QUANTILES = ("least", "25%", "median", "75%", "90%", "99%", "most", "mean")


def _values(spread: Spread) -> tuple[float, ...]:
    return (spread.least, spread.p25, spread.median, spread.p75, spread.p90, spread.p99, spread.most, spread.mean)


def _spreads(rows: Sequence[tuple[str, Spread]]) -> Table:
    cells = [(name, *(number(value) for value in _values(spread))) for name, spread in rows]
    return Table(headers=("", *_QUANTILES), rows=cells, right=range(1, 9))
