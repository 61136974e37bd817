"""The settings of a synthetic catalogue: sizes, shares and the seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contracts.errors import InputError
from contracts.modalities import check_new_modalities

_STREAMS = {"items": 0, "centres": 1, "users": 2, "features": 3, "missing": 4}


@dataclass(frozen=True, kw_only=True)
class SyntheticSpec:
    """The settings of a synthetic catalogue. The same spec gives the same catalogue, byte by byte.

    Attributes:
        num_users: U.
        num_items: N.
        seed: seed of all random numbers.
        modalities: name and feature width of each modality.
        num_groups: G, number of groups per modality; small catalogues have fewer, of about 8 items or more.
        liked_groups: number of groups that a user likes in each modality.
        shared_interests: whether all modalities have the same groups and a user likes the same groups in each, so that
            no modality has information that another lacks. Such a catalogue is the control of an experiment.
        follow: share of steps that draw a follower of the last item.
        recent: share of steps that draw an item of the last item's group.
        interest: share of steps that draw an item of a liked group; the remaining steps draw by popularity.
        num_followers: number of frequent followers of each item.
        min_length: shortest sequence; lengths above it are geometric.
        mean_length: mean length of sequences, before the limit of max_length.
        max_length: longest sequence.
        zipf: exponent of popularity.
        cold_items: share of items that are drawn 50 times less often than Zipf's law gives.
        missing: share of items without the first modality ("image").
        feature_noise: norm of the noise divided by the norm of the centre.
        dtype: dtype of the stored features.
    """

    num_users: int = 2000
    num_items: int = 600
    seed: int = 0
    modalities: tuple[tuple[str, int], ...] = (("image", 32), ("text", 48))
    num_groups: int = 24
    liked_groups: int = 2
    shared_interests: bool = False
    follow: float = 0.3
    recent: float = 0.2
    interest: float = 0.35
    num_followers: int = 3
    min_length: int = 5
    mean_length: float = 12.0
    max_length: int = 50
    zipf: float = 0.6
    cold_items: float = 0.1
    missing: float = 0.3
    feature_noise: float = 0.7
    dtype: str = "float16"

    def check(self) -> None:
        """Raise InputError if a value is outside its range."""
        ranges = {
            "num_users": (self.num_users >= 1, "at least 1"),
            "num_items": (self.num_items >= 2, "at least 2"),
            "seed": (self.seed >= 0, "at least 0"),
            "modalities": (len(self.modalities) >= 1, "at least one"),
            "min_length": (1 <= self.min_length <= self.mean_length <= self.max_length, "1 <= min <= mean <= max"),
            "follow": (
                min(self.follow, self.recent, self.interest) >= 0 and self.follow + self.recent + self.interest <= 1,
                "shares that sum with recent and interest to at most 1",
            ),
            "missing": (0 <= self.missing <= 1, "0 to 1"),
            "cold_items": (0 <= self.cold_items < 1, "0 to below 1"),
            "dtype": (self.dtype in ("float16", "float32"), "float16 or float32"),
            "liked_groups": (1 <= self.liked_groups <= self.num_groups, "1 to num_groups"),
        }
        for name, (fine, allowed) in ranges.items():
            if not fine:
                raise InputError(f"synthetic catalogue: {name}={getattr(self, name)!r}, allowed: {allowed}")
        check_new_modalities(name for name, _ in self.modalities)

    @property
    def groups(self) -> int:
        """The number of groups of this catalogue: num_groups, or fewer if there are too few items."""
        return max(min(self.num_groups, self.num_items // 8), min(self.liked_groups, self.num_items), 1)

    def stream(self, name: str, *key: int) -> np.random.Generator:
        """Return the random stream of a purpose and a chunk; so chunks can be generated in any order."""
        return np.random.default_rng([self.seed, _STREAMS[name], *key])
