"""Computes the vectors of users and items with a sharded system; ranking takes their inner products.

Shapes: B users, n items, N items of the catalogue, k centres, d width of a view, D width of a concatenated vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from configs.schema import Config
from data.sampling.batches import assemble, span_items
from data.sampling.item_planner import positions_of
from data.sampling.spans import spans_before
from data.sequences import SequenceArrays, target_items
from distributed.inputs import Inputs
from distributed.world import World
from evaluation.collectives import gather_equal
from evaluation.item_blocks import ItemBlocks
from model.protocol import ItemRows
from model.system import RecommenderSystem


class Encoder:
    """Encodes users and items with the present weights. Every method is a collective.

    A model that samples its centres in training is ranked with exact centres. `item_blocks` computes these in one
    pass over the items, and `users` reads them. So call `item_blocks` first.

    Attributes:
        system: the modules that encode.
        planner: plans the items of a step, or the whole catalogue.
        streams_centers: whether `item_blocks` makes a pass over all items to compute the centres.
    """

    def __init__(self, *, system: RecommenderSystem, inputs: Inputs, config: Config, world: World) -> None:
        self.system = system
        self._inputs, self._config, self._world = inputs, config, world
        self._needs = needs = system.recommender.needs
        self.planner = inputs.planner(needs)
        self._item_planner = inputs.item_planner(needs)
        self.streams_centers = bool(needs.centers) and needs.center_samples is not None
        self._user_planner = inputs.planner(replace(needs, centers=())) if self.streams_centers else self.planner
        self._catalogue: ItemRows | None = None
        self._centers: dict[str, Tensor] = {}
        self._sums: CenterSums | None = None

    def forget_catalogue(self) -> None:
        """Drop the rows of the whole catalogue, because the weights may have changed since they were looked up."""
        self._catalogue = None

    def item_blocks(self, *, held_bytes: float, on_round: Callable[[], None]) -> ItemBlocks:
        """Return this rank's blocks of item vectors (`ItemBlocks`). Streamed centres are computed first."""
        recommender = self.system.recommender
        blocks = ItemBlocks(
            encode=self._encode_block,
            num_items=self._inputs.dataset.num_items,
            item_block=self._config.evaluation.item_block,
            rank=self._world.rank,
            world=self._world.size,
            held_bytes=held_bytes,
            on_round=on_round,
            pair_scores=None if recommender.fusion is None else recommender.pair_scores,
        )
        if self.streams_centers:
            self._sums = CenterSums(self._inputs, self._needs.centers)
            for _ in blocks.pass_over():
                pass
            self._centers, self._sums = self._sums.means(), None
        return blocks

    def users(self, data: SequenceArrays, users: np.ndarray, positions: np.ndarray) -> Tensor:
        """Return the vectors [B, D] of users of `data`, each at a position of the user's sequence (both int64 [B]).

        Exact centres that are not streamed need the rows of the whole catalogue. Otherwise only the rows of the
        inputs' items and of the targets are looked up.
        """
        spans = spans_before(users, positions, self._config.model.max_length)
        if self._needs.centers and not self.streams_centers:
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

    def items_by_channel(self, ids: np.ndarray) -> list[Tensor]:
        """Return for each channel the vectors [n, width of the channel] of items, int64 [n], ascending and unique."""
        return self.system.recommender.scored_items(self.item_rows(ids))

    def _encode_block(self, ids: np.ndarray) -> Tensor:
        """Return item vectors [n, D]. During the pass for the centres, also add these items to the centres' sums."""
        items = self.item_rows(ids)
        if self._sums is not None:
            self._sums.add(ids, items)
        return self.system.encode_items(items)

    def item_rows(self, ids: np.ndarray) -> ItemRows:
        """Return the rows and views of items int64 [n]."""
        return self.system.item_rows(self._item_planner.plan(ids).map(self._move))

    def _move(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._world.device, non_blocking=True)


class CenterSums:
    """Adds up the views of each centre's members, block by block of the catalogue: C_m A_m E_id, without sampling.

    Each block is summed by itself, and the sums are added in the order of the blocks. So the result rounds alike for
    any number of ranks.
    """

    def __init__(self, inputs: Inputs, modalities: tuple[str, ...]) -> None:
        assert inputs.relations is not None
        self._graph, self._modalities = inputs.relations, modalities
        self._sums: dict[str, Tensor] = {}

    def add(self, ids: np.ndarray, items: ItemRows) -> None:
        """Add one block of every rank, in order of rank. A collective.

        Args:
            ids: this rank's items, int64 [b]; b may be 0.
            items: their rows, with views [b, d].
        """
        for m in self._modalities:
            view = items.views[m]
            shape = (self._graph.num_centers(m), view.shape[1])
            block = torch.zeros(shape, dtype=torch.float64, device=view.device)
            labels = torch.from_numpy(self._graph.clusters(m)[ids]).to(view.device)
            clustered = labels >= 0
            block.index_add_(0, labels[clustered], view[clustered].double())
            for other in gather_equal(block):
                self._sums[m] = self._sums[m] + other if m in self._sums else other

    def means(self) -> dict[str, Tensor]:
        """Return the centres, the means over their members, float32 [k, d]; a centre without members is zero."""
        centers = {}
        for m in self._modalities:
            clusters = np.asarray(self._graph.clusters(m))
            sizes = np.bincount(clusters[clusters >= 0], minlength=self._graph.num_centers(m))
            sums = self._sums[m]
            centers[m] = (sums / torch.from_numpy(np.maximum(sizes, 1)).to(sums.device)[:, None]).float()
        return centers
