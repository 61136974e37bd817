"""The weights that a new run begins with, and their groups by modules, for a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One weight of a new run.

    Attributes:
        name: its name in `RecommenderSystem.state_dict()`.
        shape: its shape.
        origin: "loaded", which may be followed by which rows, or "fresh" and why; empty for a weight that the run does
            not have.
        training: "trained", "frozen", or "not a parameter" for a buffer; empty likewise.
    """

    name: str
    shape: tuple[int, ...]
    origin: str
    training: str


def grouped(weights: Sequence[Weight]) -> dict[str, list[Weight]]:
    """Return the weights by the largest modules whose weights all have the same origin and training, in their order.

    A module's name is a pattern that matches its weights, such as `recommender.encoder.layers.0.*`. A module has at
    least two parts in its name.
    """
    kinds: dict[str, set[tuple[str, str]]] = {}
    for weight in weights:
        for module in _modules(weight):
            kinds.setdefault(module, set()).add((weight.origin, weight.training))
    found: dict[str, list[Weight]] = {}
    for weight in weights:
        name = next((module for module in _modules(weight) if len(kinds[module]) == 1), weight.name)
        found.setdefault(name, []).append(weight)
    return {members[0].name if len(members) == 1 else name: members for name, members in found.items()}


def _modules(weight: Weight) -> list[str]:
    """Return the patterns of the modules that hold a weight, the largest first."""
    parts = weight.name.split(".")
    return [".".join([*parts[:depth], "*"]) for depth in range(2, len(parts))]


def size_of(weights: Sequence[Weight]) -> str:
    """Return the shape of a weight, or how many numbers several have."""
    if len(weights) == 1:
        return str(list(weights[0].shape))
    return f"{len(weights)} tensors, {sum(math.prod(weight.shape) for weight in weights):,} numbers"
