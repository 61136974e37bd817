"""What each channel of a score says on its own, and how much of the whole score it makes.

Where co-occurrence is added to scores (`score_gains.py`), it is the last channel here.

B users, V views of a user: all channels together, then each alone; C = V - 1 channels, d_c width of one, D of all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from data.sequences import target_items
from distributed.inference.score_gains import GainRates
from distributed.inference.scoring import Scorer
from evaluation.metrics import ranks_from_counts
from evaluation.ranking import count_ranks, top_items
from experiments.case_page.cases import Ranking
from experiments.case_page.relations import COOCCURRENCE
from model.protocol import Channel


class ChannelScorer:
    """Ranks by all channels together and by each alone, over the same item blocks as `Scorer.rank`.

    The vector of a channel alone is the user's vector with all other channels set to zero, so the same passes over the
    items serve all views.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.inputs = scorer.inputs
        self._scorer, self._encoder = scorer, scorer.encoder
        self._recommender = scorer.system.recommender
        self._options = scorer.config.evaluation

    def study(self, users: np.ndarray, positions: np.ndarray, k: int) -> Ranking:
        """Targets (users, positions), int64 [B], among all items in every view, and the best
        min(k, N) of each view. Where there is no target ("next"), its ranks mean nothing.

        Ranks are those of `rank` but for float32 rounding: products of another shape may turn near-ties round.
        """
        data = self.inputs.dataset
        self._scorer.begin("test")
        with self._scorer.evaluating(len(users), "scoring cases", item_passes=2) as (blocks, _):
            widths = [x.shape[1] for x in self._encoder.items_by_channel(np.zeros(0, dtype=np.int64))]
            views = in_views(self._encoder.users(users, positions), widths, len(self.channels) - len(widths))
            batch, _ = self._scorer.user_batch(
                users=np.tile(users, len(views)),
                positions=np.tile(positions, len(views)),
                vectors=views.flatten(0, 1),
                hide=self._options.mask_history,
                rates=self._rates_of_views(len(users)),
                blocks=blocks,
            )
            ranks = ranks_from_counts(*count_ranks([[batch]], blocks), self._options.ties)
            best, _ = next(iter(top_items([[batch]], blocks, k)))
            shown = best.cpu().numpy().reshape(len(views), len(users), -1)
            targets = target_items(data, users, positions)
            asked = np.concatenate([shown, np.tile(targets, (len(views), 1))[:, :, None]], axis=2)
            parts = self._gained(users, positions, asked)
            parts[..., : len(widths)] += self._parts(views, asked)
        return Ranking(
            users=users,
            positions=positions,
            targets=targets,
            ranks=ranks.reshape(len(views), -1),
            best=shown,
            best_parts=parts[:, :, :-1],
            target_parts=parts[0, :, -1],
        )

    def _parts(self, views: Tensor, items: np.ndarray) -> np.ndarray:
        """Every channel's part of the scores of items int64 [V, B, K]: float64 [V, B, K, C]; 0 where the item is -1."""
        ids, place = np.unique(np.maximum(items, 0), return_inverse=True)
        vectors = self._encoder.items_by_channel(ids)
        found = torch.from_numpy(place.reshape(items.shape)).to(views.device)
        users = views[0].split([x.shape[1] for x in vectors], dim=1)
        parts = [
            torch.einsum("bd,vbkd->vbk", user.double(), x.double()[found])
            for user, x in zip(users, vectors, strict=True)
        ]
        return torch.stack(parts, dim=-1).cpu().numpy() * (items >= 0)[..., None]

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The model's, and co-occurrence where it is added."""
        weight = self._options.cooccurrence_weight
        return (*self._recommender.channels, *([Channel(COOCCURRENCE, weight)] if weight else []))

    def _rates_of_views(self, num_users: int) -> GainRates:
        """What users gain in each view, view after view: [V * B]."""
        repeats, whole = self._recommender.repeat_gains().numpy(), self._scorer.rates(1)
        others = len(self.channels) - len(repeats)  # co-occurrence, if it is a channel
        of_repeats = np.concatenate([whole.repeats, repeats, np.zeros(others, np.float32)])
        related = np.concatenate([whole.cooccurrence, np.zeros_like(repeats), whole.cooccurrence[:others]])
        return GainRates(repeats=np.repeat(of_repeats, num_users), cooccurrence=np.repeat(related, num_users))

    def _gained(self, users: np.ndarray, positions: np.ndarray, items: np.ndarray) -> np.ndarray:
        """What items int64 [V, B, K] gain in each channel's part: float64 [V, B, K, C]; 0 where the item is -1."""
        asked = np.arange(len(users))[:, None] * self.inputs.dataset.num_items + items
        ones, none = np.ones(len(users), dtype=np.float32), np.zeros(len(users), dtype=np.float32)
        held = self._gain_of(users, positions, asked, GainRates(repeats=ones, cooccurrence=none))
        parts = [held * gain for gain in self._recommender.repeat_gains().double().numpy()]
        if len(self.channels) > len(parts):
            weight = np.float32(self._options.cooccurrence_weight)
            parts.append(self._gain_of(users, positions, asked, GainRates(repeats=none, cooccurrence=weight * ones)))
        return np.stack(parts, axis=-1) * (items >= 0)[..., None]

    def _gain_of(self, users: np.ndarray, positions: np.ndarray, asked: np.ndarray, rates: GainRates) -> np.ndarray:
        """Gains float64 of pairs given as row * N + item, of the shape of `asked`."""
        items, rows, gains = self._scorer.gains.pairs(users, positions, np.full(len(users), -1), False, rates)
        keys, first = np.unique(rows * self.inputs.dataset.num_items + items, return_index=True)
        if not len(keys):
            return np.zeros(asked.shape)
        place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
        return np.where(keys[place] == asked, gains[first][place], 0.0).astype(np.float64)


def in_views(users: Tensor, widths: Sequence[int], others: int = 0) -> Tensor:
    """[V, B, D] from concatenated vectors [B, D]: as they are, then each channel with all others zero.

    For as many `others`, channels without a vector, everything is zero.
    """
    channel = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths)).to(users.device)
    alone = torch.arange(len(widths) + others, device=users.device)[:, None] == channel
    kept = torch.cat([torch.ones_like(alone[:1]), alone])
    return users * kept[:, None, :].to(users.dtype)
