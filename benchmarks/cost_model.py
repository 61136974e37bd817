"""What a step costs, as formulas: floating-point operations, bytes sent, memory, and rows looked up.

Everything is per rank and step unless it says otherwise. A multiply-add is two operations. docs/scaling.md sets these
beside what was measured; `tests/benchmarks` holds the operations to those torch counts, exactly.

Shapes: S sequences of a group, L positions they are padded to, Q states asked for of one, B targets, C columns
of logits, U items of the union, R of them with a role, N items, W ranks, M modalities, k centres, d width, f width
of the feed-forward.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from configs.schema import Config

# Rows of the fused optimiser's state beside a row of the table (FBGEMM's kinds).
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
        """Of a configured model on a graph with so many modalities, and centres in each."""
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
    """S sequences padded to L positions, Q states asked for of each (a prefix row: Q = 1)."""

    count: int
    length: int
    states: int


@dataclass(frozen=True)
class StepShape:
    """What a rank does in a step.

    Attributes:
        groups: sequences as they go through the towers.
        targets: B of this rank.
        columns: C, items or candidates that a target is scored against.
        union, roles: U and R.
        sparse_entries: entries of all graph rows multiplied with looked-up rows.
    """

    groups: tuple[Group, ...]
    targets: int
    columns: int
    union: int
    roles: int
    sparse_entries: int


def forward_flops(model: ModelShape, step: StepShape) -> dict[str, int]:
    """Operations of one forward by part: matrix products only, pads included, as they are computed.

    The last layer of a tower has queries only for the states asked for. Centres are k queries of every state; in
    layer 1 they are the same for all: queries are made once a group and logits once a sequence. Keys and values are
    the tower's; where they are few, both projections are moved to them, head by head (`model.cpu.few_keys`).
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
    """Operations of forward and backward: every dense product has two gradients, a sparse one has one."""
    forward = forward_flops(model, step)
    return 3 * sum(forward.values()) - forward["views"]


def bytes_sent(world: int, union: float, dim: int, dense_parameters: int, replicated_rows: int = 0) -> dict[str, float]:
    """Payload that a rank sends to others, by message, mean over ranks (rows are spread evenly over them).

    TorchRec's row-wise exchange, all all-to-all: splits (int64: sequences, ids and a tag), a length (int32, of the
    one sequence of ids that goes to each rank), ids (int64), rows (float32) from their owners, and
    their gradients back. Then DDP's ring all-reduce of dense gradients: 2 (W - 1) / W of them.

    Args:
        union: U, mean over ranks.
        dense_parameters: numbers outside the table, float32.
        replicated_rows: N where the table is data_parallel and its whole gradient is reduced; 0 for row_wise.
    """
    others = world - 1
    away = others / world  # share of a rank's ids, and of a ring's bytes, that leaves it
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
    """Rows and optimiser state of a rank's shard of a row-wise table, float32; the largest shard."""
    rows = -(-num_items // world)
    state = 1 if optimizer == "rowwise_adagrad" else dim * _STATE_ROWS[optimizer]
    return 4 * rows * (dim + state)


def sampler_bytes(num_items: int, num_modalities: int) -> int:
    """Host memory that every process of a sampled run holds per item: target counts, popularity, cluster members."""
    return num_items * (16 + 8 * num_modalities)


def activation_bytes(model: ModelShape, groups: Iterable[Group], width: int = 4) -> int:
    """What the backward of towers and centres keeps, `width` bytes a number.

    Per state and layer: eight tensors [d] (inputs of products and norms, dropped and not), two [f], and an
    attention weight per head and key.
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
    """Independent draws of items: `count` of them, from classes of equally likely items.

    Attributes:
        count: draws.
        chances: float64 [c], of one item of a class.
        sizes: float64 [c], items of a class; they add up to N.
    """

    count: float
    chances: np.ndarray
    sizes: np.ndarray

    @classmethod
    def uniform(cls, count: float, num_items: int) -> Draws:
        return cls(count, np.array([1 / num_items]), np.array([float(num_items)]))

    @classmethod
    def zipf(cls, count: float, num_items: int, exponent: float, classes: int = 4096) -> Draws:
        """Item of popularity i has chance proportional to i^-exponent; classes grow geometrically beyond the first."""
        edges = np.unique(np.geomspace(1, num_items + 1, classes).astype(np.int64))
        edges[-1] = num_items + 1
        sizes = np.diff(edges).astype(np.float64)
        weights = (edges[:-1] + (sizes - 1) / 2) ** -exponent
        return cls(count, weights / (weights * sizes).sum(), sizes)


def expected_distinct(draws: Iterable[Draws]) -> float:
    """Expected distinct items among independent draws that share their classes: sum of 1 - exp(-expected count)."""
    draws = list(draws)
    assert all(np.array_equal(one.sizes, draws[0].sizes) for one in draws), "classes must be the same"
    rates = sum((one.count * one.chances for one in draws), np.zeros_like(draws[0].chances))
    return float((draws[0].sizes * -np.expm1(-rates)).sum())


def expected_union(num_items: int, roles: float, links_per_role: float, more_links: float = 0) -> float:
    """U, given R: every role names `links_per_role` other items, uniform over the catalogue; and more are named.

    Real neighbours overlap more than that, so this is high where a graph is clustered.
    """
    links = roles * links_per_role + more_links
    return roles + (num_items - roles) * float(-np.expm1(-links / num_items))


def relative_error(predicted: Mapping[str, float], measured: float) -> float:
    """(predicted - measured) / measured."""
    return sum(predicted.values()) / measured - 1
