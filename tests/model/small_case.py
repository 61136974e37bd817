"""A small catalogue with missing modalities, its plans, and MDSRec on it twice: in torch and in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from configs.schema import MDSRecConfig, ModelConfig
from contracts.batch import Batch, SequenceGroup
from contracts.item_plan import ItemNeeds, ItemPlan, SparseRows
from model.blocks.item_table import RowTable
from model.mdsrec import MDSRec
from model.protocol import CatalogueInfo
from model.system import RecommenderSystem
from tests.model import mdsrec_numpy as oracle

Array = np.ndarray[Any, Any]
Module = TypeVar("Module", bound=nn.Module)
NUM_ITEMS, DIM, MAX_LENGTH, NUM_CENTERS, NUM_NEIGHBORS = 17, 8, 6, 3, 4
NOWHERE = (2, 11)  # items without any modality: in no cluster, nobody's neighbours


class Rows(RowTable):
    """A stand-in for `ItemTable`, in float64."""

    def __init__(self, rows: Array) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(rows.copy()))

    def feature(self, ids_U: Tensor) -> Tensor:
        return ids_U

    def forward(self, feature: Tensor) -> Tensor:
        return self.weight[feature]


def loss(system: nn.Module, item_plan: ItemPlan, some: Batch) -> Tensor:
    """The loss of a step, as training computes it."""
    return system(SimpleNamespace(feature=item_plan.union_ids, plan=item_plan, batch=some))


@dataclass
class Catalogue:
    """Graphs and features, dense."""

    modalities: tuple[str, ...]
    cooccurrence: Array
    features: dict[str, Array]
    missing: dict[str, Array]
    neighbors: dict[str, list[list[int]]]
    clusters: dict[str, Array]
    info: CatalogueInfo = field(init=False)

    def __post_init__(self) -> None:
        dims = {m: x.shape[1] for m, x in self.features.items()}
        self.info = CatalogueInfo(
            num_items=NUM_ITEMS,
            modalities=self.modalities,
            feature_dims=dims,
            num_centers=dict.fromkeys(self.modalities, NUM_CENTERS),
        )


def catalogue(num_modalities: int, seed: int = 0) -> Catalogue:
    rng = np.random.default_rng(seed)
    modalities = ("image", "text", "audio")[:num_modalities]
    sequences = [list(rng.permutation(NUM_ITEMS)[: rng.integers(2, 9)]) for _ in range(9)]
    relations = oracle.cooccurrence(sequences, NUM_ITEMS)
    features, missing, neighbors, clusters = {}, {}, {}, {}
    for number, m in enumerate(modalities):
        absent = np.isin(np.arange(NUM_ITEMS), [*NOWHERE, 5 + number])
        raw = np.where(absent[:, None], 0, rng.normal(size=(NUM_ITEMS, 5 + number)))
        raw[::2, 0] = 0  # a zero is not yet a missing row
        features[m], missing[m] = raw, absent
        neighbors[m] = oracle.neighbors(oracle.injected(0.2, relations, raw), absent, NUM_NEIGHBORS)
        clusters[m] = np.where(absent, -1, rng.permutation(np.arange(NUM_ITEMS) % NUM_CENTERS))
    return Catalogue(modalities, relations, features, missing, neighbors, clusters)


def sparse(dense: Array) -> SparseRows:
    rows, columns = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
    return SparseRows(
        indptr=torch.from_numpy(indptr),
        indices=torch.from_numpy(columns),
        values=torch.from_numpy(dense[rows, columns]),
        num_columns=dense.shape[1],
    )


def plan(cat: Catalogue, needs: ItemNeeds, roles: list[int] | None = None) -> ItemPlan:
    """The catalogue's plan, or that of some roles with exactly the union they need."""
    views = {m: oracle.adjacency(cat.neighbors[m], needs.view_scale == "mean") for m in needs.views}
    centers = {m: oracle.center_matrix(cat.clusters[m], NUM_CENTERS) for m in needs.centers}
    chosen = np.arange(NUM_ITEMS) if roles is None else np.unique(roles)
    relations = [cat.cooccurrence] * needs.cooccurrence + list(views.values())
    reached = np.any([r[chosen].any(axis=0) for r in relations] or [np.zeros(NUM_ITEMS, bool)], axis=0)
    union = np.concatenate([chosen, np.setdiff1d(np.flatnonzero(reached), chosen)])
    assert all(not c[:, np.setdiff1d(np.arange(NUM_ITEMS), chosen)].any() for c in centers.values())
    return ItemPlan(
        union_ids=torch.from_numpy(union),
        num_roles=len(chosen),
        cooccurrence=sparse(cat.cooccurrence[np.ix_(chosen, union)]) if needs.cooccurrence else None,
        views={m: sparse(a[np.ix_(chosen, union)]) for m, a in views.items()},
        centers={m: sparse(c[:, chosen]) for m, c in centers.items()},
        features={m: torch.from_numpy(cat.features[m][chosen]) for m in needs.features},
        is_catalogue=roles is None,
    )


def batch(histories: list[list[int]], targets: list[int], pad: int = 0, item_plan: ItemPlan | None = None) -> Batch:
    """Prefix rows in one group, with `pad` (a position) in the padding, in the order of a plan."""
    return windows(histories, [[target] for target in targets], pad, item_plan)


def windows(
    sequences: list[list[int]],
    targets: list[list[int]],
    pad: int = 0,
    item_plan: ItemPlan | None = None,
    group_sizes: list[int] | None = None,
    num_items: int = NUM_ITEMS,
) -> Batch:
    """Sequences whose last items each have a target, in consecutive groups of the given sizes (None: one group)."""
    place = np.arange(num_items)
    if item_plan is not None:
        place = np.full(num_items, -1)
        place[item_plan.union_ids.numpy()] = np.arange(len(item_plan.union_ids))
    groups, items, states = [], [], []
    rest = list(zip(sequences, targets, strict=True))
    num_states = 0
    for size in [len(sequences)] * bool(sequences) if group_sizes is None else group_sizes:
        members, rest = rest[:size], rest[size:]
        length, queries = max(len(s) for s, _ in members), max(len(t) for _, t in members)
        groups.append(SequenceGroup(size, length, queries))
        for sequence, wanted in members:
            items += [*place[sequence], *[pad] * (length - len(sequence))]
            states += range(num_states, num_states + len(wanted))
            num_states += queries
    flat = [target for wanted in targets for target in wanted]
    return Batch(
        users=torch.arange(len(flat)),
        history=torch.tensor(items, dtype=torch.int64),
        lengths=torch.tensor([len(s) for s in sequences], dtype=torch.int64),
        num_states=torch.tensor([len(t) for t in targets], dtype=torch.int64),
        groups=tuple(groups),
        states=torch.tensor(states, dtype=torch.int64),
        targets=torch.from_numpy(place[np.asarray(flat, dtype=np.int64)]),
        positions=torch.arange(len(flat)),
        num_global_targets=len(flat),
    )


def masked(
    sequences: list[list[int]],
    masks: list[list[int]],
    pad: int = 0,
    item_plan: ItemPlan | None = None,
    group_sizes: list[int] | None = None,
    num_items: int = NUM_ITEMS,
) -> Batch:
    """Sequences whose items at some ascending places are masked and are the targets, in consecutive groups."""
    targets = [[s[place] for place in places] for s, places in zip(sequences, masks, strict=True)]
    made = windows(sequences, targets, pad, item_plan, group_sizes, num_items)
    flags, rest = [], list(zip(sequences, masks, strict=True))
    for group in made.groups:
        members, rest = rest[: group.count], rest[group.count :]
        flags += [n in places for s, places in members for n in range(group.length)]
    made.masked = torch.tensor(flags, dtype=torch.bool)
    made.history[made.masked] = 0
    return made


def prefixes_of(sequences: list[list[int]], targets: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    """The prefix rows of the same targets: one sequence each, up to the item that the target follows."""
    cut = [s[: len(s) - len(t) + 1 + n] for s, t in zip(sequences, targets, strict=True) for n in range(len(t))]
    return cut, [target for wanted in targets for target in wanted]


def histories(seed: int = 1) -> tuple[list[list[int]], list[int]]:
    """Two histories of every length 1..L in mixed order, and a target each."""
    rng = np.random.default_rng(seed)
    lengths = rng.permutation(np.repeat(np.arange(1, MAX_LENGTH + 1), 2))
    chosen = [[int(i) for i in rng.integers(0, NUM_ITEMS, n)] for n in lengths]
    return chosen, [int(t) for t in rng.integers(0, NUM_ITEMS, len(lengths))]


def config(name: str = "mdsrec", mdsrec: dict[str, Any] | None = None, **shape: Any) -> ModelConfig:
    shape = {"dim": DIM, "num_heads": 2, "max_length": MAX_LENGTH, "dropout": 0.0, "init_std": 0.4, **shape}
    return ModelConfig(name=name, mdsrec=MDSRecConfig(**(mdsrec or {})), **shape)


def mdsrec_system(cat: Catalogue, model_config: ModelConfig, seed: int = 0) -> RecommenderSystem:
    """Float64, with biases and LayerNorms away from their neutral start."""
    torch.manual_seed(seed)
    recommender = MDSRec(model_config, cat.info).double()
    return RecommenderSystem(Rows(np.random.default_rng(seed).normal(size=(NUM_ITEMS, DIM))), shaken(recommender))


def slope(function: Callable[[float], float]) -> float:
    """f'(0) by central differences; the step is short for a ReLU's kinks, and makes their error 1e-12 times f'''."""
    h = 2e-6
    return (function(h) - function(-h)) / (2 * h)


def derivative(system: nn.Module, directions: dict[str, Array]) -> float:
    """The derivative along a direction of all parameters, from the gradients that `backward` left."""
    gradients = {name: p.grad for name, p in system.named_parameters() if p.grad is not None}
    return float(sum((gradients[name].numpy() * along).sum() for name, along in directions.items()))


def shaken(module: Module) -> Module:
    """The module with every parameter moved a little, in place."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return module


def numpy_layer(weights: oracle.Weights, prefix: str, shape: ModelConfig) -> oracle.Layer:
    own = {name.removeprefix(prefix): x for name, x in weights.items() if name.startswith(prefix)}
    return oracle.Layer(own, shape.num_heads, shape.activation)


def numpy_tower(weights: oracle.Weights, prefix: str, shape: ModelConfig) -> oracle.Tower:
    norm = weights[f"{prefix}input_norm.weight"], weights[f"{prefix}input_norm.bias"]
    layers = [numpy_layer(weights, f"{prefix}layers.{n}.", shape) for n in range(shape.num_layers)]
    return oracle.Tower(weights[f"{prefix}positions.weight"], norm, layers)


def numpy_mdsrec(cat: Catalogue, shape: ModelConfig, weights: oracle.Weights) -> oracle.MDSRecInNumPy:
    """The oracle with the weights of `MDSRec.state_dict()`."""
    options = shape.mdsrec
    modalities = cat.modalities if options.modalities is None else options.modalities
    streams = range(1 + len(modalities))
    towers = [numpy_tower(weights, f"encoders.{0 if options.share_modalities else s}.", shape) for s in streams]
    own = [f"center_layers.{0 if options.share_modalities else s}." for s in range(len(modalities))]
    center_layers = [
        towers[1 + s].layers
        if options.share_centers
        else [numpy_layer(weights, f"{own[s]}{n}.", shape) for n in range(shape.num_layers)]
        for s in range(len(modalities))
        if options.center_attention
    ]
    projected = [
        cat.features[m] @ weights[f"projections.{s}.weight"].T + weights[f"projections.{s}.bias"]
        for s, m in enumerate(modalities)
        if options.item_view == "features"
    ]
    return oracle.MDSRecInNumPy(
        cooccurrence=cat.cooccurrence,
        mu_id=options.mu_id,
        towers=towers,
        rho=[options.rho.get(m, options.default_rho) for m in modalities],
        tau=options.tau,
        adjacency=[oracle.adjacency(cat.neighbors[m], options.adjacency == "mean") for m in modalities],
        projected=projected or None,
        missing=[cat.missing[m] for m in modalities],
        center_matrices=[oracle.center_matrix(cat.clusters[m], NUM_CENTERS) for m in modalities]
        if options.center_attention
        else None,
        center_layers=center_layers,
        center_residual=options.center_residual,
        literal_feed_forward=options.center_feed_forward == "literal",
    )
