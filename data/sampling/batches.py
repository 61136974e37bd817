"""Batches of sequences, and in sampled training the plan of each step's items.

Shapes: S spans of a batch, B targets, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch.utils.data import Dataset

from contracts.batch import Batch, SequenceGroup, Step
from contracts.errors import InputError
from contracts.item_plan import ItemPlan
from data.ragged import offsets_of, ragged_indices
from data.sampling.grouping import group_by_length
from data.sampling.item_plan import ItemPlanner, as_tensor, positions_of
from data.sampling.negatives import CandidateSampler
from data.sampling.order import balanced_share, global_batch, shuffled, steps_per_epoch
from data.sampling.spans import Spans, TrainingSpans
from data.sequences import SequenceArrays, target_items


def assemble(
    data: SequenceArrays, spans: Spans, num_global_targets: int, to_position: Callable[[np.ndarray], np.ndarray]
) -> Batch:
    """The batch of some spans; S may be 0.

    Args:
        to_position: item ids, int64 [n], to positions of the plan; it sees real items only, never pads.
    Returns:
        A Batch with the targets in the order of the spans; a target is -1 where there is none to predict (split
        "next").
    """
    order, sizes = group_by_length(spans.lengths, spans.num_targets < spans.lengths)
    lengths, num_states = spans.lengths[order], spans.num_targets[order]
    firsts = np.cumsum(sizes) - sizes
    longest = np.maximum.reduceat(lengths, firsts)
    most_states = np.maximum.reduceat(num_states, firsts)
    # Where each sequence's padded items begin, and its padded states, in the order of the groups.
    item_offsets, state_offsets = offsets_of(np.repeat(longest, sizes)), offsets_of(np.repeat(most_states, sizes))
    history = np.zeros(item_offsets[-1], dtype=np.int64)
    history[ragged_indices(item_offsets[:-1], lengths)] = to_position(span_items(data, spans[order]))
    state_start = np.empty(len(spans), dtype=np.int64)
    state_start[order] = state_offsets[:-1]
    users, positions = spans.targets()
    targets = target_items(data, users, positions)
    known = targets >= 0
    targets[known] = to_position(targets[known])
    return Batch(
        users=as_tensor(users),
        history=as_tensor(history),
        lengths=as_tensor(lengths),
        num_states=as_tensor(num_states),
        groups=tuple(SequenceGroup(*map(int, group)) for group in zip(sizes, longest, most_states, strict=True)),
        states=as_tensor(ragged_indices(state_start, spans.num_targets)),
        targets=as_tensor(targets),
        positions=as_tensor(positions),
        num_global_targets=num_global_targets,
    )


def span_items(data: SequenceArrays, spans: Spans) -> np.ndarray:
    """Item ids that the spans see, one span after the other, int64."""
    return np.asarray(
        data.items[ragged_indices(data.offsets[spans.users] + spans.starts, spans.lengths)], dtype=np.int64
    )


class TrainBatches(Dataset[Step]):
    """Step s of an epoch on this rank: its share of global batch s in the epoch's order.

    Without a sampler all items are candidates, indices are item ids and every step has the catalogue's
    plan. With one, a step has its own plan, of the items in its histories, its targets and its candidates;
    candidates, and the draws of sampled centres, depend on the global batch alone, so they are the same on
    all ranks of any world.
    A global batch is a fixed number of spans, so that it has `batch_size` targets on average.
    A last, smaller batch is trained too: nothing is dropped.
    For DataLoader(batches, batch_size=None, sampler=range(first_step, len(batches)), num_workers=any).

    Args:
        spans: what to train.
        batch_size: targets of a step over all ranks, on average.
        seed: of the order and the draws, with the epoch.
        rank, world: this rank and how many there are.
        planner: makes the catalogue's plan, once, in the process that asks for it; or each step's.
        candidates: draws the candidates of a sampled softmax; None: a full softmax.
    Raises:
        InputError: there is no training target.
    """

    def __init__(
        self,
        *,
        data: SequenceArrays,
        spans: TrainingSpans,
        batch_size: int,
        seed: int,
        rank: int,
        world: int,
        planner: ItemPlanner,
        candidates: CandidateSampler | None = None,
    ) -> None:
        check_targets(spans)
        self._data, self._spans = data, spans
        self.spans_per_step = max(1, round(batch_size * len(spans) / spans.num_targets))
        self._seed, self._rank, self._world = seed, rank, world
        self._planner, self._candidates = planner, candidates
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # persistent workers see set_epoch

    @property
    def plan(self) -> ItemPlan | None:
        """What the indices of every batch refer to, not shipped with the batches; None where each step has its own."""
        return self._planner.catalogue() if self._candidates is None else None

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order; call it before iterating a loader over the epoch."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return steps_per_epoch(len(self._spans), self.spans_per_step)

    def __getitem__(self, step: int) -> Step:
        if not 0 <= step < len(self):
            raise IndexError(step)
        spans, own = self.spans(step)
        total = int(spans.num_targets.sum())
        if self._candidates is None:
            return Step(assemble(self._data, spans[own], total, _item_ids))
        others = (len(spans) - 1) / max(1, len(self._spans) - 1)
        candidates, log_weights = self._candidates.sample(
            int(self._epoch), step, target_items(self._data, *spans.targets()), others
        )
        spans = spans[own]
        targets = target_items(self._data, *spans.targets())
        seen = span_items(self._data, spans)
        roles = _distinct(np.concatenate([seen, targets, candidates]))
        rng = np.random.default_rng([self._seed, int(self._epoch), step, _CENTER_DRAWS])
        plan = self._planner.plan(roles, rng, seen)
        to_position = partial(positions_of, plan)
        batch = assemble(self._data, spans, total, to_position)
        batch.candidates, batch.log_weights = as_tensor(to_position(candidates)), as_tensor(log_weights)
        if self._candidates.in_batch and spans.num_targets.max(initial=1) > 1:
            batch.same_sequence = as_tensor(same_sequence_of(spans.num_targets))
        return Step(batch, plan)

    def spans(self, step: int) -> tuple[Spans, np.ndarray]:
        """The spans of global batch `step`, the same on all ranks of any world, and which of them this rank trains."""
        size = len(self._spans)
        slots = global_batch(step, size, self.spans_per_step)
        spans = self._spans.locate(shuffled(slots, size, self._seed, int(self._epoch)))
        return spans, balanced_share(spans.lengths, self._rank, self._world)


def check_targets(spans: TrainingSpans) -> None:
    """Whether there is anything to train.

    Raises:
        InputError: there is no training target.
    """
    if len(spans) == 0:
        raise InputError("no user has two training items, so there is nothing to predict: nothing to train on")


def same_sequence_of(num_targets: np.ndarray) -> np.ndarray:
    """For spans with these many targets: the targets of the same span as each, int64 [B, Q], itself as padding."""
    span = np.repeat(np.arange(len(num_targets)), num_targets)
    places = np.arange(num_targets.max(initial=1))
    firsts = np.cumsum(num_targets) - num_targets
    padding = np.arange(len(span))[:, None]
    return np.where(places < num_targets[span][:, None], firsts[span][:, None] + places, padding)


# Keeps the stream of the centres' draws apart from that of the candidates.
_CENTER_DRAWS = 1


def _distinct(ids: np.ndarray) -> np.ndarray:
    """Ascending distinct ids, by a sort: NumPy 2.4's np.unique is a hash set, which is slower on large ids."""
    ordered = np.sort(ids)
    return ordered[np.concatenate([np.ones(min(len(ordered), 1), dtype=bool), ordered[1:] != ordered[:-1]])]


def _item_ids(ids: np.ndarray) -> np.ndarray:
    """Positions of items in the catalogue's plan."""
    return ids
