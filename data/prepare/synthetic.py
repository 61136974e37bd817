"""Generates a synthetic catalogue with known structure, from a few hundred items to ten million.

Every item belongs to one group in each modality. Groups are drawn independently for each modality, so items with
similar images need not have similar texts. An item's features are its group's centre plus noise. Every user likes a few
groups in each modality, different ones for each. The next item of a sequence is drawn from a mixture:
    a frequent follower of the last item                 (sequences and co-occurrence can learn this)
    an item of the last item's group in some modality    (a modality's neighbours can learn this)
    an item of a group the user likes in some modality   (interest centres can learn this)
    any item, by popularity                              (noise)
Popularity follows Zipf's law, with a tail of items that are hardly ever drawn. The catalogue includes items that occur
in no sequence, so some have no training interaction.

B users of a chunk, N items, T steps (longest history), G groups. Memory: 16 bytes per interaction, about 100 bytes per
item, and one chunk. Features are generated block by block while they are written.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.prepare.planted_items import CHUNK, PlantedItems, PlantedRows
from data.prepare.split import leave_one_out
from data.prepare.synthetic_spec import SyntheticSpec
from data.ragged import offsets_of
from data.writing import DatasetContent, Sequences


def synthetic_content(spec: SyntheticSpec) -> DatasetContent:
    """Return the content of the catalogue; its features are generated while they are written.

    Raises:
        InputError: a value of the spec is outside its range.
    """
    spec.check()
    catalogue = PlantedItems(spec)
    chunks = range(0, spec.num_users, CHUNK)
    lengths = np.concatenate([_lengths(spec, start) for start in chunks])
    offsets = offsets_of(lengths)
    items, timestamps = np.empty(offsets[-1], np.int64), np.empty(offsets[-1], np.int64)
    for start in chunks:
        stop = min(start + CHUNK, spec.num_users)
        part = slice(offsets[start], offsets[stop])
        items[part], timestamps[part] = _histories(catalogue, start, lengths[start:stop])
    train_end, valid_end = leave_one_out(offsets)
    return DatasetContent(
        sequences=Sequences(
            offsets=offsets, items=items, timestamps=timestamps, train_end=train_end, valid_end=valid_end
        ),
        user_source_ids=_names("user-", spec.num_users),
        item_source_ids=_names("item-", spec.num_items),
        item_texts=_texts(spec, catalogue),
        features={name: PlantedRows(spec, catalogue, index) for index, (name, _) in enumerate(spec.modalities)},
        split={"method": "leave-one-out"},
        source={"format": "synthetic"} | asdict(spec),
    )


def _lengths(spec: SyntheticSpec, start: int) -> np.ndarray:
    random = spec.stream("users", start, 0)
    count = min(CHUNK, spec.num_users - start)
    extra = random.geometric(1 / (spec.mean_length - spec.min_length + 1), count) - 1
    return np.minimum(spec.min_length + extra, spec.max_length)


def _histories(catalogue: PlantedItems, start: int, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return items and timestamps of a chunk of users, one sequence after the other: int64 [sum(lengths)] each."""
    spec = catalogue.spec
    random = spec.stream("users", start, 1)
    num_users, num_modalities = len(lengths), len(spec.modalities)
    liked_BMG = random.integers(spec.groups, size=(num_users, num_modalities, spec.liked_groups))
    if spec.shared_interests:
        liked_BMG[:] = liked_BMG[:, :1]
    real_BT = np.arange(lengths.max()) < lengths[:, None]
    items_BT = np.zeros(real_BT.shape, np.int64)
    last = catalogue.by_popularity(random, num_users)
    items_BT[:, 0] = last
    shares = np.cumsum([spec.follow, spec.recent, spec.interest])
    for step in range(1, real_BT.shape[1]):
        alive = np.flatnonzero(real_BT[:, step])
        last = items_BT[alive, step - 1]
        action = np.searchsorted(shares, random.random(len(alive)), side="right")
        modality = random.integers(num_modalities, size=len(alive))
        choice = random.integers(spec.liked_groups, size=len(alive))
        group = np.where(action == 1, catalogue.groups[modality, last], liked_BMG[alive, modality, choice])
        grouped = (action == 1) | (action == 2)
        chosen = catalogue.by_popularity(random, len(alive))
        chosen[grouped] = catalogue.of_groups(random, modality[grouped], group[grouped])
        follower = random.integers(spec.num_followers, size=len(alive))
        chosen = np.where(action == 0, catalogue.followers[last, follower], chosen)
        items_BT[alive, step] = chosen
    # Timestamps in seconds: the first is within a certain year, then gaps are a day on average.
    gaps_BT = 1 + random.exponential(86_400, real_BT.shape).astype(np.int64)
    gaps_BT[:, 0] += 1_600_000_000 + random.integers(365 * 86_400, size=num_users)
    return items_BT[real_BT], np.cumsum(gaps_BT, axis=1)[real_BT]


def _names(prefix: str, count: int) -> pa.Array:
    numbers = pa.array(np.arange(count)).cast(pa.large_string())
    return pc.binary_join_element_wise(_large(prefix), numbers, _large(""))


def _texts(spec: SyntheticSpec, catalogue: PlantedItems) -> pa.Array:
    """Return texts that name the items' groups, as real texts would name their categories."""
    parts = []
    for (name, _), groups in zip(spec.modalities, catalogue.groups, strict=True):
        parts += [_large(f"{name} group"), pa.array(groups).cast(pa.large_string())]
    return pc.binary_join_element_wise(*parts, _large(" "))


def _large(text: str) -> pa.Scalar:
    return pa.scalar(text, pa.large_string())
