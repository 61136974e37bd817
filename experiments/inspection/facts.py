"""What an inspection says about a dataset, as plain data. Reports in text and HTML are made from this alone.

U users, N items, E interactions. All classes become JSON with `dataclasses.asdict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.inspection.far_times import FarTime


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How a number is spread: quantile q is the smallest value such that a share q of all values is not above it."""

    least: float
    p25: float
    median: float
    p75: float
    p90: float
    p99: float
    most: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar of a picture: what is counted, and how many there are."""

    label: str
    count: int


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """The split, and its targets. A target is an item with at least one item of the user before it.

    Attributes:
        method: the manifest's name of the rule, or "not stated".
        parameters: the other entries of the manifest's `split`.
        train: number of training targets.
        valid: number of validation targets.
        test: number of test targets.
        untrained_test: number of test targets whose item is in no training sequence.
    """

    method: str
    parameters: Mapping[str, Any]
    train: int
    valid: int
    test: int
    untrained_test: int


@dataclass(frozen=True, kw_only=True)
class HistoryFacts:
    """How many interactions users have.

    Attributes:
        lengths: of the users' sequences.
        bars: users by length.
        num_short: users with fewer than 3 interactions.
        num_at_longest: users whose sequence is as long as the longest.
    """

    lengths: Spread
    bars: tuple[Bar, ...]
    num_short: int
    num_at_longest: int


@dataclass(frozen=True, kw_only=True)
class PopularityFacts:
    """How often items occur in training sequences.

    Attributes:
        counts: training interactions of items.
        gini: 0 if all items are equally popular, near 1 if a few items have all interactions.
        num_top: number of items in the most popular 1% (at least one item).
        top_share: share of the training interactions that these items have.
        num_training: number of training interactions.
        num_untrained: items without a training interaction.
        curve: pairs (rank, count) of some ranks: the item with this rank by popularity, from 1, has this count.
    """

    counts: Spread
    gini: float
    num_top: int
    top_share: float
    num_training: int
    num_untrained: int
    curve: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class TimeFacts:
    """When interactions happened.

    Attributes:
        unit: s, ms, us or ns; None if it is neither in the manifest nor told by the size of most timestamps.
        is_stated: whether the manifest states the unit.
        first: the earliest timestamp.
        last: the latest one.
        last_training: the latest one of a training interaction; None without training interactions.
        by_magnitude: number of timestamps that are between 1980 and 2100 if they are in s, ms, us, ns; then others.
        period: what a bar is: day, month, year, or part (equal parts of the range, without dates).
        bars: interactions by period.
        num_outside: interactions that are in no bar, because their date is not between 1900 and 2100.
        far: the first and the last timestamp between 1980 and 2100, if they are far from all others.
        gaps: time between a user's consecutive interactions, in the unit, within 2%; None: no user has two.
        num_gaps: number of such gaps.
        num_equal: gaps of zero.
        num_users_at_once: users with two or more interactions, all at the same time.
        num_users_with_gaps: users with two or more interactions.
        num_test_before: test targets that are earlier than `last_training`.
    """

    unit: str | None
    is_stated: bool
    first: int
    last: int
    last_training: int | None
    by_magnitude: Mapping[str, int]
    period: str
    bars: tuple[Bar, ...]
    num_outside: int
    far: tuple[FarTime, ...]
    gaps: Spread | None
    num_gaps: int
    num_equal: int
    num_users_at_once: int
    num_users_with_gaps: int
    num_test_before: int


@dataclass(frozen=True, kw_only=True)
class RepeatFacts:
    """How often users come back to an item.

    Attributes:
        num_repeats: interactions whose user had the item before.
        num_in_a_row: interactions whose user had the item just before.
    """

    num_repeats: int
    num_in_a_row: int


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """What preparation left out: the manifest's reason, the reason in words, and the count."""

    reason: str
    words: str
    count: int


@dataclass(frozen=True, kw_only=True)
class FeatureFacts:
    """The features of a modality.

    Attributes:
        name: the modality.
        width: values of a row.
        dtype: float16 or float32.
        num_present: items with a row that is not all zeros.
        num_constant_rows: of these, rows in which all values are equal.
        num_constant_columns: columns with the same value in all of these rows.
        norms: Euclidean norms of these rows, within 2%; None: there are none.
        num_sampled: rows in the sample, for the next two.
        num_duplicates: rows of the sample that are equal to an earlier one.
        cosines: of all pairs of rows of the sample; None: it has no pair.
        encoder: what the manifest says about the encoder; None: nothing.
    """

    name: str
    width: int
    dtype: str
    num_present: int
    num_constant_rows: int
    num_constant_columns: int
    norms: Spread | None
    num_sampled: int
    num_duplicates: int
    cosines: Spread | None
    encoder: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class TextFacts:
    """The texts of items.

    Attributes:
        num_texts: items with a text that is not empty.
        lengths: characters of these texts.
        num_markup: of these, texts that hold HTML, such as <b> or &amp;.
        num_sampled: texts in the sample, for the next three.
        num_distinct: different texts in the sample.
        commonest: the most frequent text of the sample.
        num_commonest: how often the sample has it.
    """

    num_texts: int
    lengths: Spread | None
    num_markup: int
    num_sampled: int
    num_distinct: int
    commonest: str
    num_commonest: int


@dataclass(frozen=True, kw_only=True)
class IdFacts:
    """Source ids of users or items that look like mistakes, each with the first example.

    Attributes:
        num_like_floats: ids such as "1.0" or "1e5".
        like_float: one of them.
        num_spaced: ids that begin or end with a space.
        spaced: one of them.
    """

    num_like_floats: int
    like_float: str | None
    num_spaced: int
    spaced: str | None


@dataclass(frozen=True, kw_only=True)
class ItemExample:
    """An item, why it was chosen, and its training interactions."""

    why: str
    id: str
    text: str | None
    num_training: int


@dataclass(frozen=True, kw_only=True)
class Event:
    """An interaction of an example user: part is train, valid or test."""

    id: str
    text: str | None
    timestamp: int | None
    part: str


@dataclass(frozen=True, kw_only=True)
class UserExample:
    """A user, why it was chosen, the length of the sequence, and its latest events, oldest first."""

    why: str
    id: str
    length: int
    events: tuple[Event, ...]


@dataclass(frozen=True, kw_only=True)
class Surprise:
    """Something that a person should look at before training, and what to do about it; each is a sentence."""

    what: str
    next_move: str


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """All that an inspection says about a dataset; `num_unused` counts items without any interaction."""

    path: str
    fingerprint: str
    source: Mapping[str, Any]
    num_users: int
    num_items: int
    num_unused: int
    num_interactions: int
    density: float
    split: SplitFacts
    history: HistoryFacts
    popularity: PopularityFacts
    times: TimeFacts | None
    repeats: RepeatFacts
    dropped: tuple[Dropped, ...]
    features: tuple[FeatureFacts, ...]
    texts: TextFacts | None
    user_ids: IdFacts
    item_ids: IdFacts
    users: tuple[UserExample, ...]
    items: tuple[ItemExample, ...]
    surprises: tuple[Surprise, ...]
