"""Collect the content of a case page from a trained run, in one process."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.schema import Config
from contracts.errors import InputError
from data.joined import RunDataset
from data.sequences import Targets
from distributed.inference.restore import restore
from distributed.inference.scoring import Scorer
from distributed.inputs import Inputs, open_inputs
from distributed.telemetry import Track, unwatched
from distributed.world import World
from experiments.case_page.cases import CaseStudy, Item, ItemCase, UserCase, item_case, most_divided, user_case
from experiments.case_page.channel_scoring import ChannelScorer
from experiments.case_page.relations import Overlap, Relations, pick_items, survey

NUM_ITEMS, NUM_USERS = 4, 3  # chosen if none are named
MOST_NAMED = 50
DRAWN_USERS = 60
LIST = 10
_SHORT = (4, 8)  # fewest and most items of a history that can be read at a glance
_NAMED = "Chosen by the person who made this page."


def case_study(
    config: Config,
    world: World,
    checkpoint: str,
    items: Sequence[str],
    users: Sequence[str],
    seed: int,
    track: Track = unwatched,
) -> CaseStudy:
    """Collect the content of a run's page.

    Args:
        config: the run's config.
        world: a world of one rank.
        checkpoint: "latest", "best" or a step.
        items: source ids of the items to show; empty: some are chosen.
        users: source ids of the users to show; empty: some are chosen.
        seed: of the random choices.
        track: shows the progress of a loop.

    Raises:
        InputError: see `find_named` and `distributed.inference.restore.restore`.
    """
    assert world.size == 1, "a page is made in one process"
    assert config.run is not None
    named_items, named_users = find_named(open_inputs(config), items, users)
    inputs, sharded, step = restore(config, checkpoint, world)
    data, names = inputs.dataset, _Names(inputs.dataset)
    relations = Relations(inputs.graph) if inputs.graph else None
    overlaps, item_cases, item_rule = _items(relations, data, named_items, seed, names, track)
    if sharded.system.recommender.fusion is not None:
        raise InputError(
            f"run {config.run}: the scores of model.name={config.model.name} are no sum over channels, which a case "
            "page shows; choose a run of another system"
        )
    scorer = ChannelScorer(Scorer(sharded=sharded, inputs=inputs, config=config, world=world, track=track))
    user_cases, user_rule = _users(scorer, named_users, seed, names)
    return CaseStudy(
        model=config.model.name,
        run=config.run,
        step=step,
        num_items=data.num_items,
        num_users=data.num_users,
        channels=scorer.channels,
        relations=relations.names if relations else (),
        length=relations.length if relations else 0,
        mu=float(relations.graph.parameters.get("mu", 0)) if relations else 0.0,
        overlaps=tuple(overlaps),
        items=tuple(item_cases),
        item_rule=item_rule,
        users=tuple(user_cases),
        user_rule=user_rule,
        hides_history=config.evaluation.mask_history,
    )


def find_named(inputs: Inputs, items: Sequence[str], users: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of the named items and users, int64, each once, in the given order.

    Raises:
        InputError: there are too many names, a name is unknown, a user has no test item, or items are named although
            the run reads no item graph.
    """
    data = inputs.dataset
    if items and inputs.graph is None:
        raise InputError(
            f"--items {_brief(items[0])}: this run's model reads no item graph, so the page cannot show items; "
            "leave --items out, or name a run of mdsrec"
        )
    for flag, given in (("--items", items), ("--users", users)):
        if len(given) > MOST_NAMED:
            raise InputError(f"{flag}: {len(given)} are named, and a page shows at most {MOST_NAMED}; name fewer")
    found_items = _find(data, "item", items)
    found_users = _find(data, "user", users)
    without = np.flatnonzero(Targets(data, "test").per_user(found_users) == 0)
    if len(without):
        name = data.user_source_ids()[int(found_users[without[0]])].as_py()
        raise InputError(
            f"--users {_brief(name)}: has no test item in dataset {data.path} to compare offers with; name another user"
        )
    return found_items, found_users


class _Names:
    """Gives an item's source id and text."""

    def __init__(self, data: RunDataset) -> None:
        self._ids, self._texts = data.item_source_ids(), data.item_texts()

    def __call__(self, item: int) -> Item:
        text = None if self._texts is None else self._texts[item].as_py()
        return Item(self._ids[item].as_py(), text if text and text.strip() else None)


def _items(
    relations: Relations | None, data: RunDataset, named: np.ndarray, seed: int, names: _Names, track: Track
) -> tuple[list[Overlap], list[ItemCase], str]:
    """Return the overlaps of relations, the items to show, and how they were chosen; all empty without a graph."""
    if relations is None:
        return [], [], ""
    popularity = data.popularity()
    overlaps, means = survey(relations, track)
    items, rule = named, _NAMED
    if not len(named):
        items, least = pick_items(means, popularity, NUM_ITEMS, seed)
        rule = (
            "These items were chosen by a rule. Of the items that have a list for every relation, take the quarter "
            f"that was bought most (here at least {least} times in training). Of these, show the {len(items)} whose "
            f"lists have the fewest items in common. Ties are broken at random, with seed {seed}."
        )
    lists = relations.lists(items)
    lacking = {relation: relations.lacking(relation, items) for relation in relations.names}
    cases = []
    for row, item in enumerate(items.tolist()):
        missing = {relation for relation, rows in lacking.items() if rows[row]}
        cases.append(item_case(row, names(item), int(popularity[item]), lists, missing, names))
    return overlaps, cases, rule


def _users(scorer: ChannelScorer, named: np.ndarray, seed: int, names: _Names) -> tuple[list[UserCase], str]:
    """Return the users to show, at their first test item, and how they were chosen."""
    data = scorer.inputs.dataset
    users, positions, rule = _draw_users(data, named, seed)
    if not len(users):
        return [], rule
    ranking = scorer.study(users, positions, LIST)
    rows = np.arange(len(users))
    if not len(named):
        rows = most_divided(ranking.best, NUM_USERS)
        if len(ranking.best) > 2:
            rule += f" Of these, the page shows the {len(rows)} for whom the parts of the score disagree most."
    user_names = data.user_source_ids()
    cases = []
    for row in rows.tolist():
        first = data.offsets[users[row]]
        history = data.items[first : first + positions[row]].tolist()
        cases.append(user_case(row, user_names[int(users[row])].as_py(), ranking, history, names))
    return cases, rule


def _draw_users(data: RunDataset, named: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Return users, the positions of their first test items (both int64), and how they were chosen."""
    targets = Targets(data, "test")
    counts = targets.per_user()
    users = named if len(named) else np.flatnonzero(counts)
    users, positions = targets.locate((np.cumsum(counts) - counts)[users])
    if len(named):
        return users, positions, _NAMED
    if not len(users):
        return users, positions, "No user of this dataset has a test item."
    short = (positions >= _SHORT[0]) & (positions <= _SHORT[1])
    enough = int(short.sum()) >= NUM_USERS
    pool = np.flatnonzero(short) if enough else np.arange(len(users))
    size = min(len(pool), DRAWN_USERS if len(pool) > NUM_USERS else NUM_USERS)
    drawn = np.random.default_rng(seed).choice(pool, size, replace=False)
    who = f"those who had bought {_SHORT[0]} to {_SHORT[1]} items before" if enough else "all who have a test item"
    rule = (
        f"These people were chosen by a rule, whether or not the system was right: {size} people were drawn at random "
        f"(seed {seed}) from {who}."
    )
    return users[drawn], positions[drawn], rule


def _find(data: RunDataset, what: str, wanted: Sequence[str]) -> np.ndarray:
    """Return the ids, int64, of source ids, each once.

    Raises:
        InputError: a source id is not in the dataset.
    """
    if not wanted:
        return np.zeros(0, dtype=np.int64)
    known = data.item_source_ids() if what == "item" else data.user_source_ids()
    places = pc.index_in(pa.array(dict.fromkeys(wanted), type=known.type), value_set=known)
    for name, place in zip(dict.fromkeys(wanted), places, strict=True):
        if not place.is_valid:
            raise InputError(
                f"--{what}s {_brief(name)}: no such {what} among the {len(known):,} of dataset {data.path}, which has "
                f"ids such as {_near(known, name)}"
            )
    return places.to_numpy().astype(np.int64)


def _near(known: pa.Array, wanted: str) -> str:
    """Return a known id that resembles the wanted one.

    It is the closest match among up to 1000 of the known ids that share the longest prefix with the wanted one.
    """
    for length in range(min(len(wanted), 64), -1, -1):
        alike = known.filter(pc.starts_with(known, pattern=wanted[:length]))
        if len(alike):
            break
    return difflib.get_close_matches(wanted[:64], alike[:1000].to_pylist(), n=1, cutoff=0.0)[0]


def _brief(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:79]}…"
