"""Ranks the targets of users with a sharded system: among all items, and among those of the target's own group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from configs.schema import Config
from data.sequences import SequenceArrays, Split, Targets, target_items
from distributed.inference.ranked_targets import GroupRanks, Ranked
from distributed.inference.score_gains import GainRates, ScoreGains
from distributed.inference.vectors import Encoder
from distributed.inputs import Inputs
from distributed.matmul_precision import use_exact_products
from distributed.random_streams import seed_for
from distributed.sharding import ShardedSystem
from distributed.telemetry import Track, unwatched
from distributed.world import World
from evaluation.item_blocks import ItemBlocks, blocks_of_rank
from evaluation.item_groups import Grouping
from evaluation.metrics import ranks_from_counts
from evaluation.ranking import count_ranks, top_items
from evaluation.user_batches import UserBatch, exchange, user_batch

SPLITS: tuple[Split, ...] = ("valid", "test")
# Most pairs with a gain that a group of users may have, with the items of all ranks; 20 bytes each.
_MAX_PAIRS = 1 << 25


# From users int64 [B] to items that are hidden from them: item ids and rows of these users, int64 [m] each.
HiddenItems = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Scorer:
    """Scores users against the whole catalogue with a sharded system. Every method is a collective.

    `rank` and `recommend` are complete rankings. They consist of `begin`, `evaluating`, `rates` and `user_batch`,
    which other rankings use too (`experiments/case_page/channel_scoring.py`).

    A scorer on a GPU makes this process compute float32 products exactly, but for those of training.

    Users are ranked in groups, because the vectors of all users may not fit in memory. Each group takes one or two
    passes over all items.

    Attributes:
        data: the sequences of the users; the dataset's, unless `for_users_of` gave others.
        encoder: computes the vectors of users and items.
        gains: computes the gains of pairs of a user and an item.
        held_bytes: item vectors are kept between passes over the items if they take at most this many bytes.
        users_per_pass: most users in a group.
    """

    def __init__(
        self, *, sharded: ShardedSystem, inputs: Inputs, config: Config, world: World, track: Track = unwatched
    ) -> None:
        use_exact_products(world.device)
        self.system = sharded.system
        self.inputs = inputs
        self.config = config
        self.world = world
        self.track = track
        self.data: SequenceArrays = inputs.dataset
        self.encoder = Encoder(system=sharded.system, inputs=inputs, config=config, world=world)
        self.gains = ScoreGains(
            data=inputs.dataset, graph=inputs.graph, max_length=config.model.max_length, options=config.evaluation
        )
        self.held_bytes = held_bytes(config.evaluation.held_items_gib, world.device)
        self.users_per_pass = config.evaluation.users_per_pass

    def for_users_of(self, data: SequenceArrays) -> Scorer:
        """Return a scorer of other users' sequences over the same items; it shares everything else with this one."""
        other = copy(self)
        other.data, other.gains = data, replace(self.gains, data=data)
        return other

    def rank(self, split: Split, groupings: Sequence[Grouping] = ()) -> Ranked:
        """Return the rank of every target of "valid" or "test" among all items, and within its group of each grouping.

        Memory: about 100 bytes a target, and 70 more for each grouping.
        """
        data, targets = self.data, Targets(self.data, split)
        self.begin(split)
        users, positions = targets.locate(np.arange(len(targets), dtype=np.int64))
        items = target_items(data, users, positions)
        # Ordered by target, so that the targets of a batch and of a group lie in few blocks of items.
        order = np.argsort(items, kind="stable")
        with self.evaluating(len(users), f"ranking {split}", item_passes=2) as (blocks, tick):
            groups = self.groups(users[order], positions[order], self.config.evaluation.mask_history, blocks, tick)
            counts = count_ranks(groups, blocks, groupings)
        counts[..., order] = counts.copy()
        rule = self.config.evaluation.ties
        ranks, *within = (ranks_from_counts(higher, tied, before, rule) for higher, tied, before in counts)
        return Ranked(
            users=users,
            positions=positions,
            items=items,
            ranks=ranks,
            within=tuple(
                GroupRanks(grouping=grouping, labels=grouping.of(items), ranks=own)
                for grouping, own in zip(groupings, within, strict=True)
            ),
        )

    def recommend(self, k: int, mask_history: bool) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the k best next items of batches of users: users [B], item ids [B, K] (-1: none), scores [B, K]."""
        targets = Targets(self.data, "next")
        users, positions = targets.locate(np.arange(len(targets), dtype=np.int64))
        done = 0
        with self.evaluating(len(users), "ranking next", item_passes=1) as (blocks, tick):
            for ids, scores in top_items(self.groups(users, positions, mask_history, blocks, tick), blocks, k):
                yield users[done : done + len(ids)], ids.cpu().numpy(), scores.cpu().numpy()
                done += len(ids)

    def begin(self, split: Split) -> None:
        """Prepare a ranking of this split: forget rows that were looked up before, and seed the random numbers.

        Ranking needs random numbers because some models gate their channels with noise in rankings too.
        """
        self.encoder.forget_catalogue()
        seed_for(f"ranking {split}", self.config.seed, 0, self.world.rank)

    @contextmanager
    def evaluating(
        self, num_users: int, label: str, *, item_passes: int
    ) -> Iterator[tuple[ItemBlocks, Callable[[], None]]]:
        """Within this context, the model is in evaluation mode, computes no gradients, and a progress bar is shown.

        Args:
            num_users: how many users are ranked.
            label: the label of the progress bar.
            item_passes: number of passes over all items for each group of users.

        Yields:
            This rank's blocks of item vectors, and a function to call once for each batch of users that is encoded.
        """
        self.system.eval()
        # Not torch.inference_mode, in which FBGEMM cannot look up a split table.
        with torch.no_grad(), self._progress(num_users, label, item_passes) as tick:
            yield self.encoder.item_blocks(held_bytes=self.held_bytes, on_round=tick), tick

    def groups(
        self,
        users: np.ndarray,
        positions: np.ndarray,
        hide: bool,
        blocks: ItemBlocks,
        tick: Callable[[], None],
        hidden: HiddenItems | None = None,
    ) -> Iterator[list[UserBatch]]:
        """Encode batches of targets (users and positions, int64 [n] each) and yield them in groups on every rank.

        Args:
            users: the targets' users.
            positions: their places in the users' sequences.
            hide: whether items of histories are hidden.
            blocks: this rank's items.
            tick: called once for each batch of users that is encoded.
            hidden: other items to hide: a function of users int64 [B] that returns item ids and rows of these users,
                int64 [m] each.
        """
        size = self.config.evaluation.user_batch
        encoded = exchange(self._own_vectors(users, positions, tick), len(users), size)
        parts = (slice(first, first + size) for first in range(0, len(users), size))
        batches = (
            self.user_batch(
                users=users[part],
                positions=positions[part],
                vectors=vectors,
                hide=hide,
                rates=self.rates(len(vectors)),
                blocks=blocks,
                hidden=hidden,
            )
            for part, vectors in zip(parts, encoded, strict=True)
        )
        held: list[UserBatch] = []
        num_pairs = 0
        for batch, pairs in batches:
            held.append(batch)
            num_pairs += pairs
            if len(held) == self._batches_per_group() or num_pairs >= _MAX_PAIRS:
                yield held
                held, num_pairs = [], 0
        if held:
            yield held

    def rates(self, num_users: int) -> GainRates:
        """Return the gains of users in the whole score, which is the sum over channels."""
        repeats, weight = self.system.recommender.repeat_gains().sum(), self.config.evaluation.cooccurrence_weight
        return GainRates(
            repeats=np.full(num_users, float(repeats), dtype=np.float32),
            cooccurrence=np.full(num_users, float(weight), dtype=np.float32),
        )

    def _own_vectors(self, users: np.ndarray, positions: np.ndarray, tick: Callable[[], None]) -> Iterator[Tensor]:
        """Yield the user vectors of global batches rank, rank + W, ...; batches after the last user are empty."""
        size, world = self.config.evaluation.user_batch, self.world
        for number in range(world.rank, self._user_rounds(len(users)) * world.size, world.size):
            tick()
            part = slice(number * size, (number + 1) * size)
            yield self.encoder.users(self.data, users[part], positions[part])

    def user_batch(
        self,
        *,
        users: np.ndarray,
        positions: np.ndarray,
        vectors: Tensor,
        hide: bool,
        rates: GainRates,
        blocks: ItemBlocks,
        hidden: HiddenItems | None = None,
    ) -> tuple[UserBatch, int]:
        """Return a batch of users with the gains of their pairs with this rank's items.

        Args:
            users: int64 [B].
            positions: int64 [B].
            vectors: the vectors of the users, [B, D].
            hide: whether items of histories are hidden.
            rates: the gains of each user.
            blocks: this rank's items.
            hidden: other items to hide, as in `groups`.

        Returns:
            The batch, and the number of its pairs with a gain, counted over the items of all ranks.
        """
        targets = target_items(self.data, users, positions)
        items, rows, gains = self.gains.pairs(users, positions, targets, hide, rates)
        if hidden is not None:
            more, of_users = hidden(users)
            items, rows = np.concatenate([items, more]), np.concatenate([rows, of_users])
            gains = np.concatenate([gains, np.full(len(more), -np.inf, dtype=np.float32)])
        own = blocks.owns(items)
        return user_batch(vectors, targets, items[own], rows[own], gains[own]), len(items)

    def _batches_per_group(self) -> int:
        return max(1, int(self.users_per_pass) // self.config.evaluation.user_batch)

    def _user_rounds(self, num_users: int) -> int:
        return -(-num_users // (self.config.evaluation.user_batch * self.world.size))

    @contextmanager
    def _progress(self, num_users: int, label: str, item_passes: int) -> Iterator[Callable[[], None]]:
        """Show a progress bar that counts the batches of users and the blocks of every pass over the items."""
        options = self.config.evaluation
        groups = -(-num_users // (self._batches_per_group() * options.user_batch))
        rounds = blocks_of_rank(self.inputs.dataset.num_items, options.item_block, 0, self.world.size)[1]
        total = self._user_rounds(num_users) + rounds * (groups * item_passes + self.encoder.streams_centers)
        steps = iter(self.track(range(total), total, label))

        def tick() -> None:
            next(steps, None)

        yield tick
        for _ in steps:  # exhaust the loop, so that the bar is closed
            pass


def held_bytes(gib: float | Literal["auto"], device: torch.device) -> float:
    """Return `evaluation.held_items_gib` in bytes. "auto" is 1 GiB on CPUs, and a quarter of a GPU's memory."""
    if gib != "auto":
        return gib * 2**30
    return torch.cuda.get_device_properties(device).total_memory / 4 if device.type == "cuda" else 2**30
