"""Ranking with a sharded system: who encodes which users and items, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.schema import Config
from data.batches import assemble, span_items
from data.item_plan import positions_of
from data.sequences import Split, Targets, gather_histories, target_items
from data.spans import spans_before
from distributed.inputs import Inputs
from distributed.sharding import ShardedSystem
from distributed.telemetry import Track, unwatched
from distributed.world import World
from evaluation.metrics import bootstrap_intervals, bucket_masks, ranking_metrics, ranks_from_counts, sliced_metrics
from evaluation.ranking import ItemBlock, UserBatch, count_ranks, encode_blocks, exchange, top_items
from model.protocol import ItemRows

# Buckets that split the Amazon sets into comparable parts; the last is open.
POPULARITY_EDGES = (0, 1, 5, 10, 20, 50)
HISTORY_EDGES = (1, 5, 10, 20, 50)
SPLITS: tuple[Split, ...] = ("valid", "test")


@dataclass
class Ranked:
    """Ranked targets of a split: users, positions, items and 1-based ranks, int64 [n] each."""

    users: np.ndarray
    positions: np.ndarray
    items: np.ndarray
    ranks: np.ndarray


class Scorer:
    """Scores users against the whole catalogue with a sharded system. Every method is a collective."""

    def __init__(
        self, sharded: ShardedSystem, inputs: Inputs, config: Config, world: World, track: Track = unwatched
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

    def rank(self, split: Split) -> Ranked:
        """The rank of every target of "valid" or "test" in the whole catalogue."""
        data, targets = self.inputs.dataset, Targets(self.inputs.dataset, split)
        self._catalogue = None  # weights may have moved since the last call
        with self._encoding():
            batches = self._user_batches(targets, self.config.evaluation.mask_history)
            counts = count_ranks(batches, self._item_blocks(), self.config.evaluation.mask_history)
        users, positions = targets.locate(np.arange(len(targets), dtype=np.int64))
        ranks = ranks_from_counts(*counts, self.config.evaluation.ties)
        return Ranked(users, positions, target_items(data, users, positions), ranks)

    def recommend(self, k: int, mask_history: bool) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Top-k for what each user does next: users [B], item ids [B, K] (-1: none), scores [B, K]."""
        targets = Targets(self.inputs.dataset, "next")
        done = 0
        with self._encoding():
            for ids, scores in top_items(
                self._user_batches(targets, mask_history), self._item_blocks(), k, mask_history
            ):
                users, _ = targets.locate(np.arange(done, done + len(ids), dtype=np.int64))
                done += len(ids)
                yield users, ids.cpu().numpy(), scores.cpu().numpy()

    def _item_blocks(self) -> list[ItemBlock]:
        """This rank's item vectors; and the exact centres, where they are streamed."""
        sums = CenterSums(self.inputs, self.needs.centers) if self._streams_centers else None

        def encode(ids: np.ndarray) -> Tensor:
            items = self.system.item_rows(self.item_planner.plan(ids).map(self._move))
            if sums is not None:
                sums.add(ids, items)
            return self.system.encode_items(items)

        block = self.config.evaluation.item_block
        blocks = encode_blocks(encode, self.inputs.dataset.num_items, block, self.world.rank, self.world.size)
        if sums is not None:
            self._centers = sums.means(self.world)
        return blocks

    def _user_batches(self, targets: Targets, with_history: bool) -> Iterator[UserBatch]:
        size, world = self.config.evaluation.user_batch, self.world
        rounds = -(-len(targets) // (size * world.size))
        return exchange(self._own_batches(targets, rounds, with_history), size)

    def _own_batches(self, targets: Targets, rounds: int, with_history: bool) -> Iterator[UserBatch]:
        """Global batches rank, rank + W, ...; empty ones where the targets have run out."""
        data, size = self.inputs.dataset, self.config.evaluation.user_batch
        numbers = range(self.world.rank, rounds * self.world.size, self.world.size)
        for number in self.track(numbers, rounds, f"ranking {targets.split}"):
            index = np.arange(min(number * size, len(targets)), min((number + 1) * size, len(targets)))
            users, positions = targets.locate(index)
            items = target_items(data, users, positions)
            history = np.zeros((len(users), 0), np.int64)
            if with_history:
                history, lengths = gather_histories(data, users, positions, int(positions.max(initial=1)))
                history[np.arange(history.shape[1]) >= lengths[:, None]] = -1
            yield UserBatch(
                self._encode_users(users, positions),
                self._move(torch.from_numpy(items)),
                self._move(torch.from_numpy(history)),
            )

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
        plan = self._user_planner.plan(np.unique(np.concatenate([span_items(data, spans), items[items >= 0]])))
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
    """Adds up the views of each centre's members, block after block of the catalogue: C_m A_m E_id, exactly."""

    def __init__(self, inputs: Inputs, modalities: tuple[str, ...]) -> None:
        assert inputs.graph is not None
        self._graph, self._modalities = inputs.graph, modalities
        self._sums: dict[str, Tensor] = {}

    def add(self, ids: np.ndarray, items: ItemRows) -> None:
        """Items int64 [b] with their views [b, d]."""
        for m in self._modalities:
            view = items.views[m]
            if m not in self._sums:
                shape = (self._graph.num_centers(m), view.shape[1])
                self._sums[m] = torch.zeros(shape, dtype=torch.float64, device=view.device)
            labels = torch.from_numpy(self._graph.clusters(m)[ids]).to(view.device)
            clustered = labels >= 0
            self._sums[m].index_add_(0, labels[clustered], view[clustered].double())

    def means(self, world: World) -> dict[str, Tensor]:
        """Over all ranks' blocks, float32 [k, d]; an empty centre is zero. A collective."""
        centers = {}
        for m in self._modalities:
            clusters = np.asarray(self._graph.clusters(m))
            sizes = np.bincount(clusters[clusters >= 0], minlength=self._graph.num_centers(m))
            total = world.sum_tensor(self._sums[m])
            centers[m] = (total / torch.from_numpy(np.maximum(sizes, 1)).to(total.device)[:, None]).float()
        return centers


def summarise(ranked: Ranked, inputs: Inputs, config: Config) -> dict[str, Any]:
    """Metrics, 95% bootstrap intervals, and metrics by popularity, history length and modality presence."""
    data, options = inputs.dataset, config.evaluation
    slices = {
        **bucket_masks("target popularity", data.popularity()[ranked.items], POPULARITY_EDGES),
        **bucket_masks("history length", ranked.positions, HISTORY_EDGES),
    }
    for modality in data.modalities:
        present = data.presence(modality)[ranked.items]
        slices |= {f"target with {modality}": present, f"target without {modality}": ~present}
    return {
        "targets": len(ranked.ranks),
        "metrics": ranking_metrics(ranked.ranks, options.ks),
        "intervals": bootstrap_intervals(ranked.ranks, options.ks, options.bootstrap_samples, config.seed),
        "slices": sliced_metrics(ranked.ranks, slices, options.ks),
    }
