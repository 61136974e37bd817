"""The types that `data`, `graph_builder` and `model` exchange; none of the three imports another.

Shapes: S sequences of a batch, L history positions, B targets, U items of the union, R items with a role,
M modalities, d width of an embedding row, d_m width of a raw feature.

A step touches only the *union* of items it needs. The union is ordered: first the R items that have
a role (history, candidate, centre member), ascending, then the items that are only somebody's
neighbour, ascending. Every index in a batch is a position in that order, so one index serves the
looked-up rows [U, d] and each view computed from them [R, d]. With "all items" as the roles,
R = U = N and positions are the item ids themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class ItemNeeds:
    """What a model needs to know of the items of a step, declared once by the model.

    Attributes:
        id_rows: whether items have a trained ID row (False: no item table at all, as for popularity).
        cooccurrence: the normalised co-occurrence rows O of items in histories.
        cooccurrence_cap: how many of the strongest entries of a row are used, as they are; None: all.
        views: modalities whose graph rows A_m (top-H neighbours) are needed.
        view_scale: entries of A_m are 1/H ("mean") or 1 ("sum").
        centers: modalities whose interest centres C_m (cluster means over all items) are needed;
            such a model has every clustered item in the union, unless they are sampled.
        center_samples: S, draws that stand for each centre in a training step; None: exact centres.
        features: names of raw item features [N, d_m] to gather; every one is a feature of the dataset.
        popularity: how items compare by their training interactions. It is no feature: a dataset may have a feature of
            any name, this one's too.
    """

    id_rows: bool = True
    cooccurrence: bool = False
    cooccurrence_cap: int | None = None
    views: tuple[str, ...] = ()
    view_scale: Literal["mean", "sum"] = "mean"
    centers: tuple[str, ...] = ()
    center_samples: int | None = None
    features: tuple[str, ...] = ()
    popularity: bool = False


class GraphRows(Protocol):
    """Read access to an item graph, as plain arrays (implemented by `graph_builder.store.Graph`)."""

    num_items: int

    def cooccurrence_rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Normalised co-occurrence rows: indptr int64 [n+1], items int64 [nnz], weights float32 [nnz]."""
        ...

    def neighbors(self, modality: str) -> np.ndarray:
        """Top-H neighbours, int64 [N, H], padded with -1; a row without the modality holds only itself."""
        ...

    def clusters(self, modality: str) -> np.ndarray:
        """Cluster of each item, int64 [N]; -1 where the modality is missing."""
        ...

    def num_centers(self, modality: str) -> int:
        """Number of interest centres k of a modality."""
        ...


@dataclass
class SparseRows:
    """A sparse matrix in CSR form: indptr int64 [rows+1], indices int64 [nnz], values float32 [nnz]."""

    indptr: torch.Tensor
    indices: torch.Tensor
    values: torch.Tensor
    num_columns: int

    @property
    def num_rows(self) -> int:
        return len(self.indptr) - 1

    def map(self, move: Callable[[torch.Tensor], torch.Tensor]) -> SparseRows:
        return SparseRows(move(self.indptr), move(self.indices), move(self.values), self.num_columns)


@dataclass
class ItemPlan:
    """The items of a step and how their views are computed from the looked-up rows.

    Attributes:
        union_ids: int64 [U], item ids to look up; the first `num_roles` have a role.
        num_roles: R.
        cooccurrence: [R, U], rows of the normalised O, empty for items that are in no history; or None.
        views: per modality [R, U], rows of A_m.
        centers: per modality [k, R], rows of C_m (cluster means), to multiply views with.
        sampled_centers: per modality [k, U], rows of an unbiased estimate of C_m A_m, to multiply looked-up
            rows with; a plan has either these or `centers`.
        features: per name float32 [R, d_m]; all-zero rows are missing.
        popularity: float32 [R, 1], larger for an item with more training interactions; or None.
        is_catalogue: all items have a role, so R = U = N and union_ids is 0..N-1.
    """

    union_ids: torch.Tensor
    num_roles: int
    cooccurrence: SparseRows | None = None
    views: dict[str, SparseRows] = field(default_factory=dict)
    centers: dict[str, SparseRows] = field(default_factory=dict)
    sampled_centers: dict[str, SparseRows] = field(default_factory=dict)
    features: dict[str, torch.Tensor] = field(default_factory=dict)
    popularity: torch.Tensor | None = None
    is_catalogue: bool = False

    def map(self, move: Callable[[torch.Tensor], torch.Tensor]) -> ItemPlan:
        """The same plan with every tensor passed through `move` (to a device, to pinned memory)."""
        return ItemPlan(
            union_ids=move(self.union_ids),
            num_roles=self.num_roles,
            cooccurrence=self.cooccurrence.map(move) if self.cooccurrence else None,
            views={m: rows.map(move) for m, rows in self.views.items()},
            centers={m: rows.map(move) for m, rows in self.centers.items()},
            sampled_centers={m: rows.map(move) for m, rows in self.sampled_centers.items()},
            features={m: move(x) for m, x in self.features.items()},
            popularity=move(self.popularity) if self.popularity is not None else None,
            is_catalogue=self.is_catalogue,
        )


@dataclass(frozen=True)
class SequenceGroup:
    """Consecutive sequences of a batch, of similar length, that a tower pads to one shape.

    Attributes:
        count: S_g, how many.
        length: L_g, the longest of them.
        states: Q_g, the most states asked for of one of them. Where it is L_g, every sequence of the group
            is asked for the state after each of its items.
    """

    count: int
    length: int
    states: int


@dataclass
class Batch:
    """S sequences, and B targets that are predicted from the states after their last items.

    A training window has a target after each of its items (or after its last few, where an earlier window has
    trained the rest); a prefix row, or a user to be ranked, has one target, after its last item. With Q_s
    states asked for of sequence s, B = sum of Q_s. Sequences lie in the order of their groups; targets in the order
    of the spans that the batch was made of, and `states` links the two.

    Attributes:
        users: int64 [B], user ids.
        history: int64 [P], per group of `groups` the S_g x L_g positions in the plan's order, oldest first,
            right-padded with 0, group after group.
        lengths: int64 [S], >= 1, how many items of a sequence are real.
        num_states: int64 [S], Q_s in 1..length.
        groups: how the S sequences lie in `history`.
        states: int64 [B], which of the sum of S_g * Q_g padded states of all groups belongs to each target; state q of
            a sequence is the one after its item number length - Q_s + q, and q >= Q_s is padding.
        targets: int64 [B], positions in the plan's order.
        positions: int64 [B], 0-based index of the target in the user's whole sequence.
        num_global_targets: targets of this step over all ranks; the loss divides by it.
        candidates: int64 [K], distinct positions of the items that stand for the catalogue in a sampled
            softmax; None: all items with a role are candidates (a full softmax).
        log_weights: float32 [K], log of how often each candidate was drawn over how often it should be.
        mates: int64 [B, Q], the targets of the same sequence as each target, as indices into `targets`, itself as
            padding; given where the batch's targets are candidates and a sequence has several.
    S may be 0 on a rank whose share of the last step is empty.
    """

    users: torch.Tensor
    history: torch.Tensor
    lengths: torch.Tensor
    num_states: torch.Tensor
    groups: tuple[SequenceGroup, ...]
    states: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor
    num_global_targets: int
    candidates: torch.Tensor | None = None
    log_weights: torch.Tensor | None = None
    mates: torch.Tensor | None = None

    def map(self, move: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        kept = ("groups", "num_global_targets")
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in kept}
        moved: dict[str, Any] = {name: None if tensor is None else move(tensor) for name, tensor in tensors.items()}
        return replace(self, **moved)


@dataclass
class Step:
    """What a rank trains at once: a batch, and the plan that its positions refer to (None: the whole catalogue's)."""

    batch: Batch
    plan: ItemPlan | None = None

    def pin_memory(self) -> Step:
        """The same in pinned memory, for a DataLoader."""
        return Step(
            self.batch.map(lambda tensor: tensor.pin_memory()),
            self.plan.map(lambda tensor: tensor.pin_memory()) if self.plan else None,
        )
