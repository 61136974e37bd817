"""Formulas for the costs of a training step: floating-point operations, bytes sent, memory, and rows looked up.

All numbers are per rank and step unless said otherwise. A multiply-add is two operations. docs/scaling.md compares
the formulas with measurements. `tests/benchmarks` checks that the operations equal exactly those that PyTorch
counts.

Shapes: S sequences of a group, L positions that they are padded to, Q states needed of each sequence, B targets, C
columns of logits, U items of the union, R items of it with a role, N items, W ranks, M modalities, k centres, d
width, f width of the feed-forward.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from configs.schema import Config

# Rows of optimiser state per row of the table, for FBGEMM's fused optimisers.
_STATE_ROWS = {"adagrad": 1, "adam": 2, "sgd": 0}


@dataclass(frozen=True)
class ModelShape:
    """Widths and counts that decide what a model costs; SASRec is MDSRec without modalities."""

    dim: int
    ffn_dim: int
    num_layers: int
    num_heads: int
    num_modalities: int
    num_centers: int

    @classmethod
    def of(cls, config: Config, num_modalities: int, num_centers: int) -> ModelShape:
        """Return the shape of a configured model on a graph with this many modalities, and centres per modality."""
        model = config.model
        is_mdsrec = model.name == "mdsrec"
        return cls(
            model.dim,
            model.ffn_dim or 4 * model.dim,
            model.num_layers,
            model.num_heads,
            num_modalities if is_mdsrec else 0,
            num_centers if is_mdsrec and model.mdsrec.center_attention else 0,
        )

    @property
    def num_channels(self) -> int:
        return 1 + self.num_modalities


@dataclass(frozen=True)
class Group:
    """S sequences padded to L positions; Q states are needed of each (of a prefix row, Q = 1)."""

    count: int
    length: int
    states: int


@dataclass(frozen=True)
class StepShape:
    """The sizes of one rank's part of a step.

    Attributes:
        groups: the sequences, as the towers process them.
        targets: B of this rank.
        columns: C, items or candidates that a target is scored against.
        union: U.
        roles: R.
        sparse_entries: entries of all graph rows that are multiplied with looked-up rows.
    """

    groups: tuple[Group, ...]
    targets: int
    columns: int
    union: int
    roles: int
    sparse_entries: int


def forward_flops(model: ModelShape, step: StepShape) -> dict[str, int]:
    """Return the operations of one forward by part. Only matrix products are counted, padding included.

    The last layer of a tower computes queries only for the states that are needed. Centre attention has k queries for
    every state. In layer 1 these are the same for all states, so queries are computed once per group and logits once
    per sequence. Keys and values are the tower's. If there are few keys, both projections are applied to the keys
    instead, for each head (`model.cpu.few_keys`).
    """
    d, f, n, k = model.dim, model.ffn_dim, model.num_layers, model.num_centers
    dense = 2 * d * d + 2 * d * f  # query, output and feed-forward of a state
    tower = centers = 0
    for group in step.groups:
        positions = group.count * group.length
        states = group.count * group.states
        tower += positions * (n * 2 * d * d + (n - 1) * (dense + 2 * group.length * d))
        tower += states * (dense + 2 * group.length * d)
        # Mixing is done per state in every layer, logits per state from layer 2 on.
        attention = k * d * group.length * (states * (2 * n - 1) + group.count)
        if group.length <= 2 * d // model.num_heads:
            centers += n * positions * 2 * d * d + model.num_heads * attention
        else:
            centers += k * d * d * min(1, group.count) + states * k * (2 * n - 1) * d * d + attention
        centers += states * k * (n * 2 * d * f + 2 * d)  # the gate: k inner products and their mix
    return {
        "towers": 2 * model.num_channels * tower,
        "centres": 2 * model.num_modalities * centers if k else 0,
        "loss": 2 * model.num_channels * step.targets * step.columns * d,
        "views": 2 * step.sparse_entries * d,
    }


def step_flops(model: ModelShape, step: StepShape) -> int:
    """Return the operations of forward and backward. A dense product has two gradients, a sparse product one."""
    forward = forward_flops(model, step)
    return 3 * sum(forward.values()) - forward["views"]


def bytes_sent(world: int, union: float, dim: int, dense_parameters: int, replicated_rows: int = 0) -> dict[str, float]:
    """Return the payload bytes that a rank sends to others, by message; a mean over ranks.

    Rows are assumed to be spread evenly over ranks. TorchRec's row-wise exchange consists of all-to-alls: splits
    (int64: sequences, ids and a tag), a length (int32, of the one sequence of ids that goes to each rank), ids
    (int64), rows (float32) from their owners, and the rows' gradients back to the owners. Then DDP's ring
    all-reduce sends each dense gradient 2 (W - 1) / W times.

    Args:
        world: W.
        union: U, mean over ranks.
        dim: d.
        dense_parameters: parameters outside the table, float32.
        replicated_rows: N if the table is data_parallel, so that its whole gradient is reduced; 0 if it is row_wise.
    """
    others = world - 1
    away = others / world  # share of a rank's ids that other ranks own; also a factor of a ring all-reduce's bytes
    sent = {"dense gradients": 2 * away * 4 * (dense_parameters + replicated_rows * dim)}
    if not replicated_rows:
        sent |= {
            "splits": 3 * 8 * others,
            "lengths": 4 * others,
            "ids": 8 * union * away,
            "rows": 4 * dim * union * away,
            "row gradients": 4 * dim * union * away,
        }
    return sent


def table_bytes(num_items: int, dim: int, world: int, optimizer: str) -> int:
    """Return the bytes of the largest shard of a row-wise table: rows and optimiser state, float32."""
    rows = -(-num_items // world)
    state = 1 if optimizer == "rowwise_adagrad" else dim * _STATE_ROWS[optimizer]
    return 4 * rows * (dim + state)


def sampler_bytes(num_items: int, num_modalities: int) -> int:
    """Return the host memory of a sampler, which every process of a sampled run holds.

    It consists of target counts, popularity and cluster members for each item.
    """
    return num_items * (16 + 8 * num_modalities)


def activation_bytes(model: ModelShape, groups: Iterable[Group], width: int = 4) -> int:
    """Return the bytes that towers and centres keep for the backward, with `width` bytes per number.

    For each state and layer these are eight tensors [d] (inputs of products and norms, before and after dropout), two
    tensors [f], and an attention weight for each head and key.
    """
    d, f, n, h = model.dim, model.ffn_dim, model.num_layers, model.num_heads
    numbers = 0
    for group in groups:
        row = n * (8 * d + 2 * f + h * group.length)
        per_state = model.num_modalities * model.num_centers * row
        numbers += group.count * (model.num_channels * group.length * row + group.states * per_state)
    return width * numbers


@dataclass(frozen=True)
class Draws:
    """Independent random draws of items, from classes of equally likely items.

    Attributes:
        count: number of draws.
        chances: float64 [c], probability of a single item of each class.
        sizes: float64 [c], items of each class; their sum is N.
    """

    count: float
    chances: np.ndarray
    sizes: np.ndarray

    @classmethod
    def uniform(cls, count: float, num_items: int) -> Draws:
        return cls(count, np.array([1 / num_items]), np.array([float(num_items)]))

    @classmethod
    def zipf(cls, count: float, num_items: int, exponent: float, classes: int = 4096) -> Draws:
        """Return draws by Zipf's law: the i-th most popular item has a probability proportional to i^-exponent.

        Items of similar popularity share a class. The sizes of classes grow geometrically.
        """
        edges = np.unique(np.geomspace(1, num_items + 1, classes).astype(np.int64))
        edges[-1] = num_items + 1
        sizes = np.diff(edges).astype(np.float64)
        weights = (edges[:-1] + (sizes - 1) / 2) ** -exponent
        return cls(count, weights / (weights * sizes).sum(), sizes)


def expected_distinct(draws: Iterable[Draws]) -> float:
    """Return the expected number of distinct items among draws that share their classes.

    It is the sum over items of 1 - exp(-expected count of the item).
    """
    draws = list(draws)
    assert all(np.array_equal(one.sizes, draws[0].sizes) for one in draws), "classes must be the same"
    rates = sum((one.count * one.chances for one in draws), np.zeros_like(draws[0].chances))
    return float((draws[0].sizes * -np.expm1(-rates)).sum())


def expected_union(num_items: int, roles: float, links_per_role: float, more_links: float = 0) -> float:
    """Return the expected U, given R.

    Every item with a role is assumed to link to `links_per_role` other items, uniformly over the catalogue, and
    `more_links` further links are assumed. Neighbours in real graphs overlap more, so the result is too high for a
    clustered graph.
    """
    links = roles * links_per_role + more_links
    return roles + (num_items - roles) * float(-np.expm1(-links / num_items))


def relative_error(predicted: Mapping[str, float], measured: float) -> float:
    """Return (predicted - measured) / measured, where predicted is the sum over messages."""
    return sum(predicted.values()) / measured - 1
