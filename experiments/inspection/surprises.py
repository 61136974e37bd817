"""Says what would surprise a person who is about to train: each thing in one sentence with its number, and what to do.

The limits are rules of thumb. They are above what the datasets have that this project was tried with.
"""

from __future__ import annotations

from experiments.inspection.dropped import INTERACTIONS
from experiments.inspection.facts import DatasetFacts, FeatureFacts, IdFacts, Surprise
from experiments.inspection.time_surprises import Found, of_times
from experiments.inspection.wording import share

_DOMINANT = 0.1  # share of the interactions of one user or item, and three times an equal share
_UNTRAINED = 0.5  # share of test targets
_SHORT = 0.5  # share of users with fewer than 3 interactions
_TRUNCATED = 0.2  # share of users as long as the longest
_DROPPED = 0.5  # share of interactions, or of users
_IN_A_ROW = 0.1
_FLAT, _FLAT_MEAN = 0.1, 5  # Gini coefficient; training interactions per item
_STEEP = 0.8  # share of the training interactions of 1% of the items
_STEEP_ITEMS = 1000  # fewest items for which that says something
_ALIKE_COSINE = 0.95
_DUPLICATES = 0.3
_MISSING = 0.5
_NORMS = 10  # 99% quantile divided by the 25% quantile
_ALIKE_TEXTS = 0.2
_MARKUP = 0.05
_FEW_TEXTS = 0.5


def surprises(facts: DatasetFacts) -> tuple[Surprise, ...]:
    """Return what is surprising, in the order of the report; empty if nothing is."""
    parts = (_of_ids, _of_interactions, of_times, _of_split, _of_drops, _of_popularity, _of_features, _of_texts)
    return tuple(Surprise(what=what, next_move=move) for part in parts for what, move in part(facts))


def _of_ids(facts: DatasetFacts) -> Found:
    kinds: tuple[tuple[str, IdFacts, int], ...] = (
        ("user", facts.user_ids, facts.num_users),
        ("item", facts.item_ids, facts.num_items),
    )
    for kind, ids, total in kinds:
        if ids.num_like_floats:
            yield (
                f"{ids.num_like_floats:,} of {total:,} {kind} ids look like floats, such as {ids.like_float!r}.",
                "Write ids as whole numbers or text: another file with the id "
                f"{_whole(ids.like_float or '')} would mean another {kind}.",
            )
        if ids.num_spaced:
            yield (
                f"{ids.num_spaced:,} of {total:,} {kind} ids have a space at an end, such as {ids.spaced!r}.",
                f"Strip the ids in your files, unless the same {kind} has this space everywhere.",
            )


def _whole(text: str) -> str:
    return repr(text.partition(".")[0])


def _of_interactions(facts: DatasetFacts) -> Found:
    longest = facts.history.lengths.most / facts.num_interactions
    if longest >= max(_DOMINANT, 3 / facts.num_users):
        yield (
            f"One user, {facts.users[0].id!r}, has {share(longest)} of all interactions.",
            "Find out whether this is a person; an id for unknown users, a robot or a shop should be left out.",
        )
    repeats = facts.repeats.num_in_a_row / facts.num_interactions
    if repeats >= _IN_A_ROW:
        yield (
            f"In {share(repeats)} of the interactions a user has the same item as just before.",
            "If these are several events of one visit, keep one of them, or a model learns to repeat the last item.",
        )
    short = facts.history.num_short / facts.num_users
    if short >= _SHORT:
        yield (
            f"{share(short)} of the users have fewer than 3 interactions.",
            "Leave-one-out evaluates none of them; use --min-user-interactions 3 or more, or --split global-time.",
        )


def _of_split(facts: DatasetFacts) -> Found:
    split = facts.split
    lacking = [name for name, count in (("validation", split.valid), ("test", split.test)) if not count]
    if lacking:
        purposes = {"validation": "Training cannot tell when to stop", "test": "No result can be measured"}
        why = ", and ".join(purposes[name] for name in lacking).replace("and No", "and no")
        yield (f"There is no {' or '.join(lacking)} target.", f"{why}; {_better_split(facts)}.")
    if not split.test:
        return
    if split.untrained_test >= _UNTRAINED * split.test:
        yield (
            f"{share(split.untrained_test / split.test)} of the test targets are items without a training interaction.",
            "Models of ids alone cannot find them; use a model with features, or move the split.",
        )


def _better_split(facts: DatasetFacts) -> str:
    """Return what to change so that no part is empty."""
    split, times = facts.split, facts.times
    if split.method == "leave-one-out":
        return "leave-one-out needs users with 3 interactions or more; prepare more of the data, or split otherwise"
    if split.method == "global-time" and times is not None:
        moments = " and ".join(str(split.parameters.get(name, "?")) for name in ("valid_from", "test_from"))
        return (
            f"--valid-from and --test-from are {moments}, and the timestamps are {times.first} to {times.last}; give "
            "moments in the unit of the data that leave interactions before, between and after them"
        )
    return "move the split so that each part has items of users who have earlier ones"


def _of_drops(facts: DatasetFacts) -> Found:
    dropped = {one.reason: one.count for one in facts.dropped}
    core = dropped.get("k_core_interactions", 0)
    before = facts.num_interactions + sum(dropped.get(reason, 0) for reason in INTERACTIONS)
    users = dropped.get("k_core_users", 0)
    if core >= _DROPPED * before or (users >= _DROPPED * (users + facts.num_users) and core):
        yield (
            f"The k-core dropped {share(core / before)} of the interactions and "
            f"{share(users / (users + facts.num_users))} of the users; {facts.num_users:,} users are left.",
            "Results hold for these users only; to keep more, lower --min-user-interactions and "
            "--min-item-interactions.",
        )
    for reason, what in (("rows_with_null", "had an empty user, item or timestamp"), ("duplicates", "were repeated")):
        if dropped.get(reason, 0) >= _DROPPED * before:
            yield (
                f"{share(dropped[reason] / before)} of the rows {what} and were dropped.",
                "Check that the right columns were read.",
            )
    at_limit = facts.history.num_at_longest / facts.num_users
    if dropped.get("truncated_interactions") and at_limit >= _TRUNCATED:
        yield (
            f"--max-history cut many users: {share(at_limit)} have exactly {facts.history.lengths.most:,.0f} "
            f"interactions, and {dropped['truncated_interactions']:,} older ones were dropped.",
            "A model reads only the latest items anyway, but popularity and co-occurrence lose the older ones; raise "
            "--max-history if these matter.",
        )


def _of_popularity(facts: DatasetFacts) -> Found:
    popularity = facts.popularity
    if not popularity.num_training:
        yield ("There is no training interaction.", "Nothing can be learned; move the split.")
        return
    most = popularity.counts.most / popularity.num_training
    if most >= max(_DOMINANT, 3 / facts.num_items):
        yield (
            f"One item, {facts.items[0].id!r}, has {share(most)} of the training interactions.",
            "Find out whether this is a product; a placeholder or a bag at the till should be left out.",
        )
    if popularity.gini < _FLAT and popularity.counts.mean >= _FLAT_MEAN:
        yield (
            f"All items are almost equally popular: the Gini coefficient is {popularity.gini:.2f}.",
            "Real data is seldom so; find out whether the rows were sampled or generated.",
        )
    elif popularity.top_share >= _STEEP and facts.num_items >= _STEEP_ITEMS:
        yield (
            f"The most popular 1% of the items have {share(popularity.top_share)} of the training interactions.",
            "Compare with model.name=popularity, which will be hard to beat here.",
        )


def _of_features(facts: DatasetFacts) -> Found:
    for one in facts.features:
        yield from _of_modality(one, facts.num_items)


def _of_modality(one: FeatureFacts, num_items: int) -> Found:
    name = f"{one.name} features"
    if not one.num_present:
        yield (f"All {name} are zero.", "Every item lacks them; give the right file, or leave the modality out.")
        return
    missing = 1 - one.num_present / num_items
    if missing >= _MISSING:
        yield (
            f"{share(missing)} of the items have no {name}.",
            "Check that the ids of the features are those of the interactions.",
        )
    if one.num_constant_rows:
        yield (
            f"In {one.num_constant_rows:,} of {one.num_present:,} rows of the {name} all values are equal.",
            "Such a row tells nothing of its item; write zeros for items without content.",
        )
    if one.num_duplicates >= _DUPLICATES * one.num_sampled:
        yield (
            f"Of {one.num_sampled:,} rows of the {name}, {one.num_duplicates:,} are equal to another one.",
            "Check that each item has its own text or image, and not a placeholder.",
        )
    elif one.cosines is not None and one.cosines.p25 >= _ALIKE_COSINE:
        yield (
            f"The {name} are almost all alike: three quarters of the pairs of items have a cosine of "
            f"{int(1000 * one.cosines.p25) / 1000} or more.",
            "Subtract the mean of all rows, or take another encoder or pooling; otherwise neighbours say little.",
        )
    norms = one.norms
    if norms is not None and norms.p99 >= _NORMS * norms.p25:
        yield (
            f"The norms of the {name} differ widely: a quarter is at most {norms.p25:.3g}, and one in a hundred is "
            f"{norms.p99:.3g} or more.",
            "Scale the rows to one length, unless the length means something.",
        )


def _of_texts(facts: DatasetFacts) -> Found:
    texts = facts.texts
    if texts is None:
        return
    if not texts.num_texts:
        yield ("All texts are empty.", "Check the column that was read as text.")
        return
    missing = 1 - texts.num_texts / facts.num_items
    if missing >= _FEW_TEXTS:
        yield (f"{share(missing)} of the items have no text.", "Check that the texts have the interactions' item ids.")
    if texts.num_sampled >= 10 and texts.num_commonest >= _ALIKE_TEXTS * texts.num_sampled:
        yield (
            f"{share(texts.num_commonest / texts.num_sampled)} of the texts are the same: {texts.commonest[:60]!r}.",
            "Leave a placeholder empty, so that these items count as items without text.",
        )
    if texts.num_markup >= _MARKUP * texts.num_texts:
        yield (
            f"{share(texts.num_markup / texts.num_texts)} of the texts hold HTML, such as <b> or &amp;.",
            "Remove the markup before the texts are encoded.",
        )
