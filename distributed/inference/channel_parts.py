"""Computes how much of a score came from each channel, for chosen pairs of a user and an item.

If co-occurrence is added to scores (`score_gains.py`), it counts as the last channel here.

Shapes: B users; V lists of items per user; K items of a list; C channels; D the summed width of all channels' vectors.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from distributed.inference.score_gains import GainRates
from distributed.inference.scoring import Scorer
from model.protocol import Channel

COOCCURRENCE = "bought together"  # no modality's name has a space


class ChannelParts:
    """Divides scores among the channels, with the sequences and the weights of a scorer."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, self._recommender = scorer, scorer.system.recommender
        self._num_items = scorer.inputs.dataset.num_items
        self._weight = scorer.config.evaluation.cooccurrence_weight

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The model's channels; then co-occurrence, if it is added to scores."""
        more = [Channel(COOCCURRENCE, self._weight)] if self._weight else []
        return (*self._recommender.channels, *more)

    def of(self, users: np.ndarray, positions: np.ndarray, vectors: Tensor, items: np.ndarray) -> np.ndarray:
        """Return each channel's part of the scores, gains included. They add up to the score, unless it is fused.

        Args:
            users: int64 [B].
            positions: int64 [B], places in the users' sequences; the items before them are the histories.
            vectors: the users' vectors, [B, D].
            items: int64 [V, B, K]; -1 for none.

        Returns:
            float64 [V, B, K, C]; 0 where the item is -1.
        """
        parts = self._gained(users, positions, items)
        products = self._products(vectors, items)
        parts[..., : products.shape[-1]] += products
        return parts

    def _products(self, vectors: Tensor, items: np.ndarray) -> np.ndarray:
        """Return the inner products of users and items int64 [V, B, K] in each channel with vectors, float64."""
        ids, place = np.unique(np.maximum(items, 0), return_inverse=True)
        of_items = self._scorer.encoder.items_by_channel(ids)
        found = torch.from_numpy(place.reshape(items.shape)).to(vectors.device)
        users = vectors.split([x.shape[1] for x in of_items], dim=1)
        parts = [
            torch.einsum("bd,vbkd->vbk", user.double(), x.double()[found])
            for user, x in zip(users, of_items, strict=True)
        ]
        return torch.stack(parts, dim=-1).cpu().numpy() * (items >= 0)[..., None]

    def _gained(self, users: np.ndarray, positions: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Compute the gains of items int64 [V, B, K] by channel: float64 [V, B, K, C]; 0 where the item is -1."""
        asked = np.arange(len(users))[:, None] * self._num_items + items
        ones, none = np.ones(len(users), dtype=np.float32), np.zeros(len(users), dtype=np.float32)
        held = self._gain_of(users, positions, asked, GainRates(repeats=ones, cooccurrence=none))
        parts = [held * gain for gain in self._recommender.repeat_gains().double().numpy()]
        if self._weight:
            weight = np.float32(self._weight)
            parts.append(self._gain_of(users, positions, asked, GainRates(repeats=none, cooccurrence=weight * ones)))
        return np.stack(parts, axis=-1) * (items >= 0)[..., None]

    def _gain_of(self, users: np.ndarray, positions: np.ndarray, asked: np.ndarray, rates: GainRates) -> np.ndarray:
        """Compute the gains of (row, item) pairs, given as row * N + item; float64, in the shape of `asked`."""
        items, rows, gains = self._scorer.gains.pairs(users, positions, np.full(len(users), -1), False, rates)
        keys, first = np.unique(rows * self._num_items + items, return_index=True)
        if not len(keys):
            return np.zeros(asked.shape)
        place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
        return np.where(keys[place] == asked, gains[first][place], 0.0).astype(np.float64)
