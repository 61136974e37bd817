"""Batches of prefix rows for training and evaluation, and in sampled training the plan of each step's items.

Shapes: B users of a batch, L history positions, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch.utils.data import Dataset

from configs.contracts import Batch, ItemPlan, Step
from configs.errors import InputError
from data.item_plan import ItemPlanner, as_tensor, positions_of
from data.negatives import CandidateSampler
from data.order import rank_share, shuffled, steps_per_epoch
from data.sequences import SequenceArrays, Targets, gather_histories, target_items


def assemble(
    data: SequenceArrays,
    users: np.ndarray,
    positions: np.ndarray,
    max_length: int,
    num_global_targets: int,
    to_position: Callable[[np.ndarray], np.ndarray],
) -> Batch:
    """The prefix rows of targets (users, positions), int64 [B] each; B may be 0.

    Args:
        to_position: item ids, int64 [n], to positions of the plan; it sees real items only, never pads.
    Returns:
        A Batch; a target is -1 where there is none to predict (split "next").
    """
    history, lengths = gather_histories(data, users, positions, max_length)
    real = np.arange(history.shape[1]) < lengths[:, None]
    history[real] = to_position(history[real])
    targets = target_items(data, users, positions)
    known = targets >= 0
    targets[known] = to_position(targets[known])
    return Batch(
        users=as_tensor(users),
        history=as_tensor(history),
        lengths=as_tensor(lengths),
        targets=as_tensor(targets),
        positions=as_tensor(positions),
        num_global_targets=num_global_targets,
    )


class TrainBatches(Dataset[Step]):
    """Step s of an epoch on this rank: its share of global batch s in the epoch's order.

    Without a sampler all items are candidates, indices are item ids and every step has the catalogue's
    plan. With one, a step has its own plan, of the items in its histories, its targets and its candidates;
    candidates, and the draws of sampled centres, depend on the global batch alone, so they are the same on
    all ranks of any world.
    A last, smaller batch is trained too: nothing is dropped.
    For DataLoader(batches, batch_size=None, sampler=range(first_step, len(batches)), num_workers=any).

    Args:
        targets: the training targets.
        batch_size: targets of a step over all ranks.
        max_length: history items used at most.
        seed: of the order and the draws, with the epoch.
        rank, world: this rank and how many there are.
        planner: makes the catalogue's plan, once, in the process that asks for it; or each step's.
        candidates: draws the candidates of a sampled softmax; None: a full softmax.
    Raises:
        InputError: there is no training target.
    """

    def __init__(
        self,
        data: SequenceArrays,
        targets: Targets,
        batch_size: int,
        max_length: int,
        seed: int,
        rank: int,
        world: int,
        planner: ItemPlanner,
        candidates: CandidateSampler | None = None,
    ) -> None:
        if len(targets) == 0:
            raise InputError("no user has two training items, so there is nothing to predict: nothing to train on")
        self._data, self._targets = data, targets
        self._batch_size, self._max_length = batch_size, max_length
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
        return steps_per_epoch(len(self._targets), self._batch_size)

    def __getitem__(self, step: int) -> Step:
        if not 0 <= step < len(self):
            raise IndexError(step)
        size, epoch = len(self._targets), int(self._epoch)
        first, end = rank_share(step, size, self._batch_size, 0, 1)
        own = slice(*(slot - first for slot in rank_share(step, size, self._batch_size, self._rank, self._world)))
        if self._candidates is None:
            share = np.arange(first, end)[own]
            users, positions = self._targets.locate(shuffled(share, size, self._seed, epoch))
            return Step(assemble(self._data, users, positions, self._max_length, end - first, _item_ids))
        users, positions = self._targets.locate(shuffled(np.arange(first, end), size, self._seed, epoch))
        targets = target_items(self._data, users, positions)
        candidates, log_weights = self._candidates.sample(epoch, step, targets)
        users, positions = users[own], positions[own]
        history, lengths = gather_histories(self._data, users, positions, self._max_length)
        real = np.arange(history.shape[1]) < lengths[:, None]
        roles = _distinct(np.concatenate([history[real], targets[own], candidates]))
        plan = self._planner.plan(roles, np.random.default_rng([self._seed, epoch, step, _CENTER_DRAWS]))
        to_position = partial(positions_of, plan)
        batch = assemble(self._data, users, positions, self._max_length, end - first, to_position)
        batch.candidates, batch.log_weights = as_tensor(to_position(candidates)), as_tensor(log_weights)
        return Step(batch, plan)


class EvaluationBatches(Dataset[Batch]):
    """Targets [b * batch_size, (b + 1) * batch_size) of a split in their own order, the same on every rank and world.

    Indices are item ids. Ranks share the batches by choosing which b they ask for.
    """

    def __init__(self, data: SequenceArrays, targets: Targets, batch_size: int, max_length: int) -> None:
        self._data, self._targets = data, targets
        self._batch_size, self._max_length = batch_size, max_length

    def __len__(self) -> int:
        return steps_per_epoch(len(self._targets), self._batch_size)

    def __getitem__(self, number: int) -> Batch:
        if not 0 <= number < len(self):
            raise IndexError(number)
        index = np.arange(*rank_share(number, len(self._targets), self._batch_size, 0, 1))
        users, positions = self._targets.locate(index)
        return assemble(self._data, users, positions, self._max_length, len(index), _item_ids)


# Keeps the stream of the centres' draws apart from that of the candidates.
_CENTER_DRAWS = 1


def _distinct(ids: np.ndarray) -> np.ndarray:
    """Ascending distinct ids, by a sort: NumPy 2.4's np.unique is a hash set, which is slower on large ids."""
    ordered = np.sort(ids)
    return ordered[np.concatenate([np.ones(min(len(ordered), 1), dtype=bool), ordered[1:] != ordered[:-1]])]


def _item_ids(ids: np.ndarray) -> np.ndarray:
    """Positions of items in the catalogue's plan."""
    return ids
