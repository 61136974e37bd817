"""What each channel of a score says on its own, and how much of the whole score it makes.

B users, V views of a user: all channels together, then each alone; C = V - 1 channels, d_c width of one, D of all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from data.batches import span_items
from data.sequences import target_items
from data.spans import spans_before
from distributed.random_streams import seed_for
from distributed.scoring import Scorer
from evaluation.case_study import Ranking
from evaluation.metrics import ranks_from_counts
from evaluation.ranking import count_ranks, top_items


class ChannelScorer(Scorer):
    """Ranks by all channels together and by each alone, streaming the same item blocks as `rank` does.

    A channel alone is the user's vector with all others zero, so one sweep over the items serves all views.
    """

    def study(self, users: np.ndarray, positions: np.ndarray, k: int) -> Ranking:
        """Targets (users, positions), int64 [B], among all items in every view, and the best
        min(k, N) of each view. Where there is no target ("next"), its ranks mean nothing.

        Ranks are those of `rank` but for float32 rounding: products of another shape may turn near-ties round.
        """
        options, data = self.config.evaluation, self.inputs.dataset
        self._catalogue = None
        seed_for("ranking test", self.config.seed, 0, self.world.rank)
        with self._encoding(), self._progress(len(users), "scoring cases", sweeps=2) as tick:
            blocks = self._item_blocks(tick)
            widths = [x.shape[1] for x in self._channel_vectors(np.zeros(0, dtype=np.int64))]
            views = in_views(self._encode_users(users, positions), widths)
            every, at = np.tile(users, len(views)), np.tile(positions, len(views))
            own_gains = self.system.recommender.repeat_gains()
            gains = torch.cat([own_gains.sum()[None], own_gains]).repeat_interleave(len(users))
            batch = self._user_batch(every, at, views.flatten(0, 1), options.mask_history, gains, blocks)
            ranks = ranks_from_counts(*count_ranks([[batch]], blocks), options.ties)
            best, _ = next(iter(top_items([[batch]], blocks, k)))
            shown = best.cpu().numpy().reshape(len(views), len(users), -1)
            targets = target_items(data, users, positions)
            asked = np.concatenate([shown, np.tile(targets, (len(views), 1))[:, :, None]], axis=2)
            parts = self._parts(views, asked) + self._gained(users, positions, asked)
        return Ranking(
            users, positions, targets, ranks.reshape(len(views), -1), shown, parts[:, :, :-1], parts[0, :, -1]
        )

    def _channel_vectors(self, ids: np.ndarray) -> list[Tensor]:
        """Per channel [n, d_c] of items int64 [n], ascending and unique."""
        rows = self.system.item_rows(self.item_planner.plan(ids).map(self._move))
        return self.system.recommender.item_vectors(rows)

    def _parts(self, views: Tensor, items: np.ndarray) -> np.ndarray:
        """Every channel's part of the scores of items int64 [V, B, K]: float64 [V, B, K, C]; 0 where the item is -1."""
        ids, place = np.unique(np.maximum(items, 0), return_inverse=True)
        vectors = self._channel_vectors(ids)
        found = torch.from_numpy(place.reshape(items.shape)).to(self.world.device)
        users = views[0].split([x.shape[1] for x in vectors], dim=1)
        parts = [
            torch.einsum("bd,vbkd->vbk", user.double(), x.double()[found])
            for user, x in zip(users, vectors, strict=True)
        ]
        return torch.stack(parts, dim=-1).cpu().numpy() * (items >= 0)[..., None]

    def _gained(self, users: np.ndarray, positions: np.ndarray, items: np.ndarray) -> np.ndarray:
        """What items int64 [V, B, K] gain where the users' inputs hold them: float64 [V, B, K, C]."""
        data = self.inputs.dataset
        spans = spans_before(users, positions, self.config.model.max_length)
        rows = np.repeat(np.arange(len(users)), spans.lengths)
        held = np.isin(
            np.arange(len(users))[:, None] * data.num_items + items, rows * data.num_items + span_items(data, spans)
        )
        return (held & (items >= 0))[..., None] * self.system.recommender.repeat_gains().double().numpy()


def in_views(users: Tensor, widths: Sequence[int]) -> Tensor:
    """[V, B, D] from concatenated vectors [B, D]: as they are, then each channel with all others zero."""
    channel = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths)).to(users.device)
    alone = torch.arange(len(widths), device=users.device)[:, None] == channel
    kept = torch.cat([torch.ones_like(alone[:1]), alone])
    return users * kept[:, None, :].to(users.dtype)
