"""Computes all facts about a dataset, in blocks of bounded memory.

N items, U users, E interactions. Time: one read of each file, two of the timestamps if they are of several sizes.
Memory: the memory-mapped pages, a few blocks, and some 20 bytes for each item.
"""

from __future__ import annotations

from dataclasses import replace

from contracts.errors import InputError
from data.dataset import Dataset
from experiments.inspection.blocks import BLOCK
from experiments.inspection.dropped import dropped_facts
from experiments.inspection.examples import choose, item_examples, shown_items, user_examples
from experiments.inspection.facts import DatasetFacts
from experiments.inspection.feature_pass import feature_facts
from experiments.inspection.name_pass import item_names, user_names
from experiments.inspection.popularity import popularity_facts
from experiments.inspection.sequence_pass import sequence_pass
from experiments.inspection.stated import stated
from experiments.inspection.surprises import surprises


def inspect_dataset(data: Dataset, *, block: int = BLOCK) -> DatasetFacts:
    """Return the facts about a dataset whose values are valid (`Dataset.validate`).

    Args:
        data: the dataset.
        block: interactions or users that are read at a time; the facts do not depend on it.

    Raises:
        InputError: the dataset has no interactions, or a file cannot be read.
    """
    if not data.num_interactions:
        raise InputError(f"dataset {data.path}: has no interactions, so there is nothing to look at; prepare it again")
    training = data.popularity()
    found = sequence_pass(data, training, block)
    history, popularity = found.history_facts(), popularity_facts(training)
    chosen = choose(data, training, popularity, int(history.lengths.median), int(history.lengths.most))
    items, users = item_names(data, shown_items(data, chosen)), user_names(data, chosen.users)
    facts = DatasetFacts(
        path=data.path,
        fingerprint=data.fingerprint,
        source=stated(data.manifest, "source"),
        num_users=data.num_users,
        num_items=data.num_items,
        num_unused=found.num_unused,
        num_interactions=data.num_interactions,
        density=data.num_interactions / (data.num_users * data.num_items),
        split=found.split_facts(),
        history=history,
        popularity=popularity,
        times=found.time_facts(),
        repeats=found.repeat_facts(),
        dropped=dropped_facts(data.manifest),
        features=tuple(feature_facts(data, modality) for modality in data.modalities),
        texts=items.texts,
        user_ids=users.ids,
        item_ids=items.ids,
        users=user_examples(data, chosen, users, items),
        items=item_examples(chosen, training, items),
        surprises=(),
    )
    return replace(facts, surprises=surprises(facts))
