"""Makes the batches of training steps and, in sampled training, the item plan of each step.

Shapes: S spans of a batch, B targets, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.utils.data import Dataset

from contracts.batch import Batch, SequenceGroup, Step
from contracts.errors import InputError
from contracts.item_plan import ItemPlan
from data.domains import Domain
from data.ragged import offsets_of, ragged_indices
from data.sampling.grouping import ON_CPU, Grouping, divide
from data.sampling.item_planner import ItemPlanner, as_tensor, positions_of
from data.sampling.negatives import CandidateSampler
from data.sampling.order import balanced_share, global_batch, shuffled, steps_of_parts, steps_per_epoch
from data.sampling.spans import SpanRange, Spans, TrainingSpans
from data.sequences import SequenceArrays, target_items


def assemble(
    data: SequenceArrays,
    spans: Spans,
    num_global_targets: int,
    to_position: Callable[[np.ndarray], np.ndarray],
    grouping: Grouping = ON_CPU,
) -> Batch:
    """Return the batch of some spans, which may be none.

    Args:
        data: the sequences.
        spans: the spans.
        num_global_targets: number of targets of the step over all ranks.
        to_position: returns the positions in the plan of item ids, int64 [n]; it is never called for padding.
        grouping: the rule by which sequences are grouped.

    Returns:
        A Batch with targets in the order of the spans; -1 for a target without an item (split "next").
    """
    groups = divide(spans.lengths, spans.num_targets, spans.masked is not None, grouping)
    order, sizes = groups.order, groups.sizes
    lengths, num_states = spans.lengths[order], spans.num_targets[order]
    longest, most_states = np.repeat(groups.lengths, sizes), np.repeat(groups.states, sizes)
    # The start of each sequence's padded items, and of its padded states, in the order of the groups.
    item_offsets, state_offsets = offsets_of(longest), offsets_of(most_states)
    history, masked = np.zeros(item_offsets[-1], dtype=np.int64), None
    ordered, places = spans[order], ragged_indices(item_offsets[:-1], lengths)
    history[places] = to_position(span_items(data, ordered))
    state_start = np.empty(len(spans), dtype=np.int64)
    # Where every state of a group is computed, the requested ones are a sequence's last ones.
    all_states = (most_states == longest) & (ordered.masked is None)
    state_start[order] = state_offsets[:-1] + np.where(all_states, lengths - num_states, 0)
    if ordered.masked is not None:
        masked = np.zeros(len(history), dtype=bool)
        masked[places] = ordered.masked
        history[masked] = 0  # so that no model can read what it should predict
    users, positions = spans.targets()
    targets = target_items(data, users, positions)
    known = targets >= 0
    targets[known] = to_position(targets[known])
    return Batch(
        users=as_tensor(users),
        history=as_tensor(history),
        lengths=as_tensor(lengths),
        num_states=as_tensor(num_states),
        groups=tuple(
            SequenceGroup(*map(int, group)) for group in zip(sizes, groups.lengths, groups.states, strict=True)
        ),
        states=as_tensor(ragged_indices(state_start, spans.num_targets)),
        targets=as_tensor(targets),
        positions=as_tensor(positions),
        num_global_targets=num_global_targets,
        masked=as_tensor(masked) if masked is not None else None,
    )


def span_items(data: SequenceArrays, spans: Spans) -> np.ndarray:
    """Return the ids of the items of the spans, masked ones included, one span after the other, int64."""
    return np.asarray(
        data.items[ragged_indices(data.offsets[spans.users] + spans.starts, spans.lengths)], dtype=np.int64
    )


class TrainBatches(Dataset[Step]):
    """The steps of an epoch on this rank: step s is the rank's share of global batch s in the epoch's order.

    Without `candidates`, all items are candidates, indices are item ids, and every step has the plan of the whole
    catalogue. With `warm`, the warm items alone are the catalogue, and indices are places among them. With
    `candidates`, each step has its own plan, of the items in its histories, its targets and its candidates. Candidates
    and the draws of sampled centres depend only on the global batch, so they are the same on all ranks and for any
    number of ranks. With `step_plans` and no `candidates`, a step's plan has the items of its histories and targets.

    A global batch has a fixed number of spans, so that it has `batch_size` targets on average. The last batch may be
    smaller, and is trained too. With `domains`, a global batch has spans of one domain, and each domain has a
    last batch of its own. The batches of a domain are in the order that they have if it is trained alone, and are
    shuffled among those of the other domains by seed and epoch. Use it as DataLoader(batches, batch_size=None,
    sampler=range(first_step, len(batches)), num_workers=any).

    Args:
        data: the sequences.
        spans: the spans to train.
        batch_size: number of targets of a step over all ranks, on average.
        seed: seed of the order and the draws, together with the epoch.
        rank: this rank.
        world: number of ranks.
        planner: makes the plan of each step, or that of the catalogue once in the process that needs it.
        candidates: draws the candidates of a sampled softmax; None: there are none.
        step_plans: whether each step has its own plan even without candidates, for losses that need no other items.
        grouping: the rule by which sequences are grouped, which depends on the device (`grouping_for`).
        warm: int64, ascending, the items that are in training sequences or may be, if others are held out of training;
            None: all.
        domains: the parts of the users whose spans never share a step; none: all spans are mixed.

    Attributes:
        spans_per_step: the largest number of spans of a step.

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
        step_plans: bool = False,
        grouping: Grouping = ON_CPU,
        warm: np.ndarray | None = None,
        domains: Sequence[Domain] = (),
    ) -> None:
        check_targets(spans)
        self._data, self._spans = data, spans
        self._parts = _parts_of(spans, batch_size, data, domains)
        self.spans_per_step = max(part.spans_per_step for part in self._parts)
        self._steps = [steps_per_epoch(part.spans.size, part.spans_per_step) for part in self._parts]
        self._part_order: tuple[int, np.ndarray, np.ndarray] | None = None  # of the epoch, if there are several parts
        self._seed, self._rank, self._world = seed, rank, world
        self._planner, self._candidates = planner, candidates
        self._step_plans = step_plans or candidates is not None
        self._grouping, self._warm = grouping, warm
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # persistent workers see set_epoch

    @property
    def plan(self) -> ItemPlan | None:
        """The plan to which the indices of all batches refer; None if each step comes with its own plan."""
        if self._step_plans:
            return None
        return self._planner.catalogue() if self._warm is None else self._planner.plan(self._warm)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, and so the order; call it before iterating a loader over the epoch."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return sum(self._steps)

    def __getitem__(self, step: int) -> Step:
        if not 0 <= step < len(self):
            raise IndexError(step)
        spans, own = self.spans(step)
        total = int(spans.num_targets.sum())
        if not self._step_plans:
            to_place = _item_ids if self._warm is None else partial(_places_among, self._warm)
            return Step(assemble(self._data, spans[own], total, to_place, self._grouping))
        sampled = None
        if self._candidates is not None:
            part, _ = self._place(step)
            others = (len(spans) - 1) / max(1, part.spans.size - 1)
            sampled = self._candidates.sample(
                int(self._epoch), step, target_items(self._data, *spans.targets()), others, part.items
            )
        spans = spans[own]
        targets = target_items(self._data, *spans.targets())
        seen = span_items(self._data, spans)
        roles = _distinct(np.concatenate([seen, targets, *(sampled[:1] if sampled else ())]))
        rng = np.random.default_rng([self._seed, int(self._epoch), step, _CENTER_DRAWS])
        plan = self._planner.plan(roles, rng, seen)
        to_position = partial(positions_of, plan)
        batch = assemble(self._data, spans, total, to_position, self._grouping)
        if self._candidates is None or sampled is None:
            return Step(batch, plan)
        candidates, log_weights = sampled
        batch.candidates, batch.log_weights = as_tensor(to_position(candidates)), as_tensor(log_weights)
        if self._candidates.in_batch and spans.num_targets.max(initial=1) > 1:
            batch.same_sequence = as_tensor(same_sequence_of(spans.num_targets))
        return Step(batch, plan)

    def spans(self, step: int) -> tuple[Spans, np.ndarray]:
        """Return the spans of global batch `step`, which are the same on all ranks, and those that this rank trains."""
        part, number = self._place(step)
        slots = global_batch(number, part.spans.size, part.spans_per_step)
        chosen = part.spans.first + shuffled(slots, part.spans.size, self._seed, int(self._epoch))
        spans = self._spans.locate(chosen, int(self._epoch))
        return spans, balanced_share(spans.lengths, self._rank, self._world)

    def _place(self, step: int) -> tuple[_Part, int]:
        """Return the part of the spans that a step trains, and the number of the step among the steps of this part."""
        if len(self._parts) == 1:
            return self._parts[0], step
        epoch = int(self._epoch)
        if self._part_order is None or self._part_order[0] != epoch:
            self._part_order = (epoch, *steps_of_parts(self._steps, self._seed, epoch))
        _, parts, numbers = self._part_order
        return self._parts[int(parts[step])], int(numbers[step])


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Spans that share steps with no others.

    Attributes:
        spans: the spans.
        spans_per_step: how many of them a step trains.
        items: the items of the domain whose spans they are; None: the spans are all there are.
    """

    spans: SpanRange
    spans_per_step: int
    items: range | None


def _parts_of(
    spans: TrainingSpans, batch_size: int, data: SequenceArrays, domains: Sequence[Domain]
) -> tuple[_Part, ...]:
    """Return the parts that have a span. Their steps have `batch_size` targets on average."""
    of_users: list[tuple[int, int, range | None]]
    if len(domains) > 1:
        of_users = [(d.first_user, d.num_users, range(d.first_item, d.first_item + d.num_items)) for d in domains]
    else:
        of_users = [(0, data.num_users, None)]
    found = [(spans.of_users(first, first + count), items) for first, count, items in of_users]
    return tuple(
        _Part(spans=own, spans_per_step=max(1, round(batch_size * own.size / own.num_targets)), items=items)
        for own, items in found
        if own.size
    )


def check_targets(spans: TrainingSpans) -> None:
    """Check that there is a training target.

    Raises:
        InputError: there is none.
    """
    if len(spans) == 0:
        raise InputError(
            "no user whose sequence is trained has two training items, so there is nothing to train on; prepare a "
            "dataset with longer sequences or fewer cold items, or raise training.user_share if it is below 1"
        )


def same_sequence_of(num_targets: np.ndarray) -> np.ndarray:
    """Return `Batch.same_sequence` for spans with these numbers of targets: int64 [B, Q], itself as padding."""
    span = np.repeat(np.arange(len(num_targets)), num_targets)
    places = np.arange(num_targets.max(initial=1))
    firsts = np.cumsum(num_targets) - num_targets
    padding = np.arange(len(span))[:, None]
    return np.where(places < num_targets[span][:, None], firsts[span][:, None] + places, padding)


# Makes the random stream of the centres' draws differ from that of the candidates.
_CENTER_DRAWS = 1


def _distinct(ids: np.ndarray) -> np.ndarray:
    """Return distinct ids, ascending. On large ids, a sort is faster than the hash set of NumPy 2.4's np.unique."""
    ordered = np.sort(ids)
    return ordered[np.concatenate([np.ones(min(len(ordered), 1), dtype=bool), ordered[1:] != ordered[:-1]])]


def _item_ids(ids: np.ndarray) -> np.ndarray:
    """Return the positions of items in the plan of the whole catalogue, which are their ids."""
    return ids


def _places_among(ascending: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the places of ids in an array that has them, int64."""
    places = np.searchsorted(ascending, ids)
    assert ids.size == 0 or (places.max() < len(ascending) and (ascending[places] == ids).all()), "a cold item"
    return places
