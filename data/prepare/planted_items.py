"""The items of a synthetic catalogue: their groups, popularity, followers and features.

N items, M modalities, G groups, d_m width of a feature row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data.ragged import offsets_of

if TYPE_CHECKING:
    from data.prepare.synthetic_spec import SyntheticSpec

CHUNK = 1 << 16  # users or items drawn with one random stream; another number would change the data of a seed


class PlantedItems:
    """The items, and draws from them.

    Attributes:
        groups: int32 [M, N], group of each item in each modality.
        followers: int64 [N, F], the frequent followers of each item.
    """

    def __init__(self, spec: SyntheticSpec) -> None:
        random, num_items, num_modalities = spec.stream("items"), spec.num_items, len(spec.modalities)
        self.spec = spec
        weights = np.arange(1, num_items + 1, dtype=np.float64) ** -spec.zipf
        weights[num_items - int(num_items * spec.cold_items) :] *= 0.02
        weights = weights[random.permutation(num_items)]
        self._cumulative = np.cumsum(weights)
        drawn = 1 if spec.shared_interests else num_modalities
        groups = random.integers(spec.groups, size=(drawn, num_items), dtype=np.int32)
        self.groups = np.broadcast_to(groups, (num_modalities, num_items))
        # For each grouping, the items group after group with cumulative weights, so that one binary search draws an
        # item of a given group by popularity.
        self._members = [np.argsort(row, kind="stable") for row in groups]
        self._running = [np.concatenate([[0.0], np.cumsum(weights[members])]) for members in self._members]
        self._bounds = [offsets_of(np.bincount(row, minlength=spec.groups)) for row in groups]
        self.followers = self.by_popularity(random, num_items * spec.num_followers).reshape(num_items, -1)

    def by_popularity(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Draw items by popularity: int64 [count]."""
        return _search(self._cumulative, random.random(count) * self._cumulative[-1])

    def of_groups(self, random: np.random.Generator, modalities: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Draw an item from each given group of each given modality, by popularity: int64 [count].

        For an empty group, which occurs in tiny catalogues, the item is from an adjacent group.
        """
        uniform = random.random(len(groups))
        items = np.empty(len(groups), np.int64)
        for modality in range(len(self.groups)):
            grouping = modality if len(self._members) > 1 else 0
            rows = modalities == modality
            bounds, running = self._bounds[grouping], self._running[grouping]
            low, high = running[bounds[groups[rows]]], running[bounds[groups[rows] + 1]]
            position = _search(running[1:], low + uniform[rows] * (high - low))
            items[rows] = self._members[grouping][position]
        return items


def _search(cumulative: np.ndarray, values: np.ndarray) -> np.ndarray:
    # Rounding may make a value equal to the last edge.
    return np.minimum(np.searchsorted(cumulative, values, side="right"), len(cumulative) - 1)


@dataclass(frozen=True)
class PlantedRows:
    """The features of a modality (a `writing.FeatureRows`): group centre plus noise, or zeros for a missing one."""

    spec: SyntheticSpec
    catalogue: PlantedItems
    modality: int

    @property
    def dim(self) -> int:
        return self.spec.modalities[self.modality][1]

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.spec.dtype)

    def blocks(self, block_rows: int) -> Iterator[np.ndarray]:
        del block_rows  # chunks are those of the random streams, so that a seed always gives the same data
        spec, scale = self.spec, np.float32(self.dim**-0.5)
        centres = spec.stream("centres", self.modality).standard_normal((spec.groups, self.dim), np.float32) * scale
        for start in range(0, spec.num_items, CHUNK):
            groups = self.catalogue.groups[self.modality, start : start + CHUNK]
            random = spec.stream("features", self.modality, start)
            noise = random.standard_normal((len(groups), self.dim), np.float32) * scale
            block = (centres[groups] + np.float32(spec.feature_noise) * noise).astype(self.dtype)
            if self.modality == 0:
                block[spec.stream("missing", start).random(len(groups)) < spec.missing] = 0
            yield block
