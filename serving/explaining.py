"""Says where recommendations came from: how much each channel adds, and how the score falls without an item.

n: users with a list, K: items of a list, L: items of an input, C: channels.
"""

from __future__ import annotations

import numpy as np

from data.ragged import offsets_of, ragged_indices
from distributed.inference.channel_parts import ChannelParts
from distributed.inference.scoring import Scorer
from evaluation.ranking import score_pairs
from serving.history_ranking import HistoryRanking
from serving.item_lists import Histories
from serving.item_names import ItemNames
from serving.results import Explanation

# Most histories that are explained at a time: each is encoded once for each item of its input.
MOST_EXPLAINED = 1000


def explain_lists(ranking: HistoryRanking, data: Histories, items: np.ndarray, names: ItemNames) -> Explanation:
    """Explain lists of recommendations.

    Args:
        ranking: ranks with the run's weights.
        data: the histories.
        items: the lists, int64 [n, K]; -1 for none.
        names: the items' source ids.
    """
    scorer, (num_users, k) = ranking.scorer, items.shape
    known = np.flatnonzero(data.lengths > 0)
    parts_of = ChannelParts(scorer.for_users_of(data))
    parts = np.zeros((num_users, k, len(parts_of.channels)))
    longest = scorer.config.model.max_length
    inputs, changes = _inputs(data, longest), np.full((num_users, k, 0), np.nan, dtype=np.float32)
    if len(known):
        positions = data.lengths[known]
        vectors = [scorer.encoder.users(data, known[one], positions[one]) for one in _batches(scorer, len(known))]
        for one, of_batch in zip(_batches(scorer, len(known)), vectors, strict=True):
            users = known[one]
            parts[users] = parts_of.of(users, positions[one], of_batch, items[None, users])[0]
        changes = np.full((num_users, k, inputs.shape[1]), np.nan, dtype=np.float32)
        _fill_changes(ranking, data, items, changes)
    texts = scorer.inputs.dataset.item_texts()
    shown = np.unique(np.concatenate([items.reshape(-1), inputs.reshape(-1)]))
    titles = {} if texts is None else {int(i): texts[int(i)].as_py() for i in shown[shown >= 0]}
    return Explanation(
        channels=tuple(channel.label for channel in parts_of.channels),
        parts=parts,
        is_fused=scorer.system.recommender.fusion is not None,
        inputs=inputs,
        input_ids=names.source(inputs),
        changes=changes,
        titles={item: title for item, title in titles.items() if title},
    )


def _inputs(data: Histories, longest: int) -> np.ndarray:
    """Return the latest items of each history, int64 [n, L], oldest first; -1 after the last."""
    lengths = np.minimum(data.lengths, longest)
    found = np.full((data.num_users, int(lengths.max(initial=0))), -1, dtype=np.int64)
    rows = np.repeat(np.arange(data.num_users), lengths)
    columns = ragged_indices(np.zeros_like(lengths), lengths)
    found[rows, columns] = data.items[ragged_indices(data.offsets[1:] - lengths, lengths)]
    return found


def _fill_changes(ranking: HistoryRanking, data: Histories, items: np.ndarray, changes: np.ndarray) -> None:
    """Write score(whole history) - score(history without an item) into `changes` [n, K, L].

    Only the latest max_length + 1 items are kept of a history: one more than the model reads, because the one before
    the input moves into it when another item is taken out.
    """
    longest, k = ranking.scorer.config.model.max_length, items.shape[1]
    several = np.flatnonzero(data.lengths > 1)
    cut, removed = np.minimum(data.lengths[several], longest + 1), np.minimum(data.lengths[several], longest)
    owner = np.repeat(np.arange(len(several)), removed)
    column = ragged_indices(np.zeros_like(removed), removed)
    place = column + (cut - removed)[owner]  # the removed item's place among the items that are kept
    sizes = cut[owner] - 1
    inside = ragged_indices(np.zeros_like(sizes), sizes)
    row = np.repeat(np.arange(len(owner)), sizes)
    start = (data.offsets[several + 1] - cut)[owner]
    shorter = data.items[start[row] + inside + (inside >= place[row])]
    without = Histories(
        num_items=data.num_items,
        offsets=offsets_of(sizes),
        items=shorter,
        unknown=np.zeros(len(sizes), dtype=np.int64),
    )
    whole = _scores(ranking, data, several, items[several])
    others = _scores(ranking, without, np.arange(len(sizes)), items[several[owner]])
    found = whole[owner] - others
    found[items[several[owner]] < 0] = np.nan
    changes[np.repeat(several[owner], k), np.tile(np.arange(k), len(owner)), np.repeat(column, k)] = found.reshape(-1)


def _scores(ranking: HistoryRanking, data: Histories, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return the scores of items int64 [m, K] for users int64 [m]: float32 [m, K]; those of -1 mean nothing."""
    found, done, k = np.zeros(items.shape, dtype=np.float32), 0, items.shape[1]
    for of_group, group in ranking.groups(data, users, False, None, None):
        part = slice(done, done + len(of_group))
        rows = np.repeat(np.arange(len(of_group)), k)
        scores = score_pairs(group, ranking.blocks, rows, np.maximum(items[part], 0).reshape(-1))
        found[part] = scores.cpu().numpy().reshape(-1, k)
        done += len(of_group)
    return found


def _batches(scorer: Scorer, count: int) -> list[slice]:
    size = scorer.config.evaluation.user_batch
    return [slice(first, first + size) for first in range(0, count, size)]
