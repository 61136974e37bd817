"""Ranking with a sharded system: who encodes which users and items, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from configs.schema import Config
from data.sampling.batches import assemble, span_items
from data.sampling.item_plan import positions_of
from data.sampling.spans import spans_before
from data.sequences import Split, Targets, repeats_history, target_items
from distributed.inference.score_gains import GainRates, ScoreGains
from distributed.inputs import Inputs
from distributed.random_streams import seed_for
from distributed.sharding import ShardedSystem
from distributed.telemetry import Track, unwatched
from distributed.world import World
from evaluation.item_blocks import ItemBlocks, blocks_of_rank
from evaluation.metrics import bootstrap_intervals, bucket_masks, ranking_metrics, ranks_from_counts, sliced_metrics
from evaluation.ranking import count_ranks, top_items
from evaluation.user_batches import UserBatch, exchange, user_batch
from model.protocol import ItemRows

# Buckets that split the Amazon sets into comparable parts; the last is open.
POPULARITY_EDGES = (0, 1, 5, 10, 20, 50)
HISTORY_EDGES = (1, 5, 10, 20, 50)
SPLITS: tuple[Split, ...] = ("valid", "test")
# Pairs that gain, of a pass and with the items of all ranks: 20 bytes each.
_MAX_PAIRS = 1 << 25


@dataclass(kw_only=True)
class Ranked:
    """Ranked targets of a split: users, positions, items and 1-based ranks, int64 [n] each."""

    users: np.ndarray
    positions: np.ndarray
    items: np.ndarray
    ranks: np.ndarray


class Scorer:
    """Scores users against the whole catalogue with a sharded system. Every method is a collective."""

    def __init__(
        self, *, sharded: ShardedSystem, inputs: Inputs, config: Config, world: World, track: Track = unwatched
    ) -> None:
        self.system = sharded.system
        self.inputs = inputs
        self.config = config
        self.world = world
        self.track = track
        self.needs = sharded.system.recommender.needs
        self.planner = inputs.planner(self.needs)
        self.item_planner = inputs.item_planner(self.needs)
        self._catalogue: ItemRows | None = None
        # A model that samples its centres in training is ranked with exact ones, made in the pass over the items.
        self._streams_centers = bool(self.needs.centers) and self.needs.center_samples is not None
        self._user_planner = inputs.planner(replace(self.needs, centers=())) if self._streams_centers else self.planner
        self._centers: dict[str, Tensor] = {}
        self._sums: CenterSums | None = None
        self._gains = ScoreGains(
            data=inputs.dataset, graph=inputs.graph, max_length=config.model.max_length, options=config.evaluation
        )
        self.held_bytes = config.evaluation.held_items_gib * 2**30
        self.users_per_pass = config.evaluation.users_per_pass

    def rank(self, split: Split) -> Ranked:
        """The rank of every target of "valid" or "test" in the whole catalogue. Memory: about 100 bytes a target."""
        data, targets = self.inputs.dataset, Targets(self.inputs.dataset, split)
        self._catalogue = None  # weights may have moved since the last call
        seed_for(f"ranking {split}", self.config.seed, 0, self.world.rank)  # of gates that are noisy here too
        users, positions = targets.locate(np.arange(len(targets), dtype=np.int64))
        items = target_items(data, users, positions)
        # By target: the targets of a batch, and of a pass, are then in few of the item blocks.
        order = np.argsort(items, kind="stable")
        with self._encoding(), self._progress(len(users), f"ranking {split}", sweeps=2) as tick:
            blocks = self._item_blocks(tick)
            passes = self._passes(users[order], positions[order], self.config.evaluation.mask_history, blocks, tick)
            counts = np.stack(count_ranks(passes, blocks))
        counts[:, order] = counts.copy()
        ranks = ranks_from_counts(counts[0], counts[1], counts[2], self.config.evaluation.ties)
        return Ranked(users=users, positions=positions, items=items, ranks=ranks)

    def recommend(self, k: int, mask_history: bool) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Top-k for what each user does next: users [B], item ids [B, K] (-1: none), scores [B, K]."""
        targets = Targets(self.inputs.dataset, "next")
        users, positions = targets.locate(np.arange(len(targets), dtype=np.int64))
        done = 0
        with self._encoding(), self._progress(len(users), "ranking next", sweeps=1) as tick:
            blocks = self._item_blocks(tick)
            for ids, scores in top_items(self._passes(users, positions, mask_history, blocks, tick), blocks, k):
                yield users[done : done + len(ids)], ids.cpu().numpy(), scores.cpu().numpy()
                done += len(ids)

    def _item_blocks(self, tick: Callable[[], None]) -> ItemBlocks:
        """This rank's item vectors; and the exact centres, where they are streamed."""
        num_items, size, world = self.inputs.dataset.num_items, self.config.evaluation.item_block, self.world
        blocks = ItemBlocks(
            encode=self._encode_items,
            num_items=num_items,
            item_block=size,
            rank=world.rank,
            world=world.size,
            held_bytes=self.held_bytes,
            on_round=tick,
        )
        if self._streams_centers:
            self._sums = CenterSums(self.inputs, self.needs.centers)
            for _ in blocks.sweep():
                pass
            self._centers, self._sums = self._sums.means(), None
        return blocks

    def _encode_items(self, ids: np.ndarray) -> Tensor:
        """Item vectors [n, D]; their share of the centres is added up on the way while these are being made."""
        items = self.system.item_rows(self.item_planner.plan(ids).map(self._move))
        if self._sums is not None:
            self._sums.add(ids, items)
        return self.system.encode_items(items)

    def _passes(
        self, users: np.ndarray, positions: np.ndarray, hide: bool, blocks: ItemBlocks, tick: Callable[[], None]
    ) -> Iterator[list[UserBatch]]:
        """Batches of targets (users, positions), int64 [n] each, encoded and brought to every rank a pass at a time."""
        size = self.config.evaluation.user_batch
        encoded = exchange(self._own_vectors(users, positions, tick), len(users), size)
        parts = (slice(first, first + size) for first in range(0, len(users), size))
        batches = (
            self._user_batch(users[part], positions[part], vectors, hide, self._rates(len(vectors)), blocks)
            for part, vectors in zip(parts, encoded, strict=True)
        )
        held: list[UserBatch] = []
        num_pairs = 0
        for batch, pairs in batches:
            held.append(batch)
            num_pairs += pairs
            if len(held) == self._batches_per_pass() or num_pairs >= _MAX_PAIRS:
                yield held
                held, num_pairs = [], 0
        if held:
            yield held

    def _rates(self, num_users: int) -> GainRates:
        """What users gain in the whole score."""
        repeats, weight = self.system.recommender.repeat_gains().sum(), self.config.evaluation.cooccurrence_weight
        return GainRates(
            repeats=np.full(num_users, float(repeats), dtype=np.float32),
            cooccurrence=np.full(num_users, float(weight), dtype=np.float32),
        )

    def _own_vectors(self, users: np.ndarray, positions: np.ndarray, tick: Callable[[], None]) -> Iterator[Tensor]:
        """Vectors of global batches rank, rank + W, ...; empty ones where the users have run out."""
        size, world = self.config.evaluation.user_batch, self.world
        for number in range(world.rank, self._user_rounds(len(users)) * world.size, world.size):
            tick()
            part = slice(number * size, (number + 1) * size)
            yield self._encode_users(users[part], positions[part])

    def _user_batch(
        self,
        users: np.ndarray,
        positions: np.ndarray,
        vectors: Tensor,
        hide: bool,
        rates: GainRates,
        blocks: ItemBlocks,
    ) -> tuple[UserBatch, int]:
        """A batch with what pairs with this rank's items gain, and how many pairs there are with those of all ranks."""
        targets = target_items(self.inputs.dataset, users, positions)
        items, rows, gains = self._gains.pairs(users, positions, targets, hide, rates)
        own = blocks.owns(items)
        return user_batch(vectors, targets, items[own], rows[own], gains[own]), len(items)

    def _batches_per_pass(self) -> int:
        return max(1, int(self.users_per_pass) // self.config.evaluation.user_batch)

    def _user_rounds(self, num_users: int) -> int:
        return -(-num_users // (self.config.evaluation.user_batch * self.world.size))

    @contextmanager
    def _progress(self, num_users: int, label: str, sweeps: int) -> Iterator[Callable[[], None]]:
        """A bar over the rounds in which users are encoded and those of every sweep over the items."""
        options = self.config.evaluation
        passes = -(-num_users // (self._batches_per_pass() * options.user_batch))
        rounds = blocks_of_rank(self.inputs.dataset.num_items, options.item_block, 0, self.world.size)[1]
        total = self._user_rounds(num_users) + rounds * (passes * sweeps + self._streams_centers)
        steps = iter(self.track(range(total), total, label))

        def tick() -> None:
            next(steps, None)

        yield tick
        for _ in steps:  # so that the bar ends
            pass

    def _encode_users(self, users: np.ndarray, positions: np.ndarray) -> Tensor:
        """User vectors [B, D]; exact centres read the whole catalogue, unless streamed; others their histories only."""
        data = self.inputs.dataset
        spans = spans_before(users, positions, self.config.model.max_length)
        if self.needs.centers and not self._streams_centers:
            if self._catalogue is None:
                self._catalogue = self.system.item_rows(self.planner.catalogue().map(self._move))
            batch = assemble(data, spans, len(users), lambda ids: ids)
            return self.system.encode_users(self._catalogue, batch.map(self._move))
        items = target_items(data, users, positions)
        seen = span_items(data, spans)
        plan = self._user_planner.plan(np.unique(np.concatenate([seen, items[items >= 0]])), seen=seen)
        batch = assemble(data, spans, len(users), partial(positions_of, plan))
        rows = self.system.item_rows(plan.map(self._move))
        rows.centers = self._centers
        return self.system.encode_users(rows, batch.map(self._move))

    def _move(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.world.device, non_blocking=True)

    def _encoding(self) -> Any:
        self.system.eval()
        return torch.no_grad()  # not inference_mode: FBGEMM cannot look up a split table in it


class CenterSums:
    """Adds up the views of each centre's members, block after block of the catalogue: C_m A_m E_id, exactly.

    Blocks are summed apart and added in their order, so that the sums round alike for any number of ranks.
    """

    def __init__(self, inputs: Inputs, modalities: tuple[str, ...]) -> None:
        assert inputs.graph is not None
        self._graph, self._modalities = inputs.graph, modalities
        self._sums: dict[str, Tensor] = {}

    def add(self, ids: np.ndarray, items: ItemRows) -> None:
        """A block of every rank, in order of rank: items int64 [b] (b may be 0), their views [b, d]. A collective."""
        for m in self._modalities:
            view = items.views[m]
            shape = (self._graph.num_centers(m), view.shape[1])
            block = torch.zeros(shape, dtype=torch.float64, device=view.device)
            labels = torch.from_numpy(self._graph.clusters(m)[ids]).to(view.device)
            clustered = labels >= 0
            block.index_add_(0, labels[clustered], view[clustered].double())
            blocks = [torch.empty_like(block) for _ in range(dist.get_world_size())]
            dist.all_gather(blocks, block)
            for other in blocks:
                self._sums[m] = self._sums[m] + other if m in self._sums else other

    def means(self) -> dict[str, Tensor]:
        """Of all blocks added, float32 [k, d]; an empty centre is zero."""
        centers = {}
        for m in self._modalities:
            clusters = np.asarray(self._graph.clusters(m))
            sizes = np.bincount(clusters[clusters >= 0], minlength=self._graph.num_centers(m))
            sums = self._sums[m]
            centers[m] = (sums / torch.from_numpy(np.maximum(sizes, 1)).to(sums.device)[:, None]).float()
        return centers


def summarise(ranked: Ranked, inputs: Inputs, config: Config) -> dict[str, Any]:
    """Metrics, 95% bootstrap intervals, and metrics by popularity, history length, modality presence and repeats.

    `repeat_share` is the share of targets that the user's history already holds.
    """
    data, options = inputs.dataset, config.evaluation
    repeats = repeats_history(data, ranked.users, ranked.positions)
    slices = {
        **bucket_masks("target popularity", data.popularity()[ranked.items], POPULARITY_EDGES),
        **bucket_masks("history length", ranked.positions, HISTORY_EDGES),
    }
    for modality in data.modalities:
        present = data.presence(modality)[ranked.items]
        slices |= {f"target with {modality}": present, f"target without {modality}": ~present}
    slices |= {"target in the history": repeats, "target new to the user": ~repeats}
    return {
        "targets": len(ranked.ranks),
        "repeat_share": float(repeats.mean()) if len(repeats) else None,
        "metrics": ranking_metrics(ranked.ranks, options.ks),
        "intervals": bootstrap_intervals(ranked.ranks, options.ks, options.bootstrap_samples, config.seed),
        "slices": sliced_metrics(ranked.ranks, slices, options.ks),
    }
