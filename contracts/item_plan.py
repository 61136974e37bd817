"""The items of a training step, and what a model needs to know of them.

Shapes: U items of the union, R items with a role, d width of an embedding row, d_m width of a raw feature.

A step reads only the items that it needs, its *union*. First in the union are the R items that have a *role* (in a
history, a candidate, or a member of a centre), by ascending id; then the items that are only neighbours of these, by
ascending id. Every index in a batch is a position in this order. So one index works for the looked-up rows [U, d] and
for each view computed from them [R, d]. If every item has a role, R = U = N and positions equal the item ids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class ItemNeeds:
    """What a model needs to know of the items of a step, declared once by the model.

    Attributes:
        id_rows: whether the model needs trained ID rows; False: no item table at all, as for popularity.
        cooccurrence: whether it needs the normalised co-occurrence rows O of the items in histories.
        cooccurrence_cap: number of entries of a row that are used, the strongest first, without rescaling the row;
            None: all.
        views: modalities whose graph rows A_m (top-H neighbours) it needs.
        view_scale: whether entries of A_m are 1/H ("mean") or 1 ("sum").
        centers: modalities whose interest centres C_m (cluster means over all items) it needs. Exact centres put every
            clustered item into the union.
        center_samples: S, number of draws that estimate each centre in a training step; None: exact centres.
        features: names of the dataset's raw item features [N, d_m] that it needs.
        popularity: whether it needs the items' popularity. This is a field of its own, not an entry of `features`,
            because a dataset may have a feature named "popularity".
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


@dataclass(kw_only=True)
class SparseRows:
    """A sparse matrix in CSR form: indptr int64 [rows+1], indices int32 [nnz], values float32 [nnz].

    Indices are int64 if the matrix has more than 2^31 columns.
    """

    indptr: torch.Tensor
    indices: torch.Tensor
    values: torch.Tensor
    num_columns: int

    @property
    def num_rows(self) -> int:
        return len(self.indptr) - 1

    def map(self, move: Callable[[torch.Tensor], torch.Tensor]) -> SparseRows:
        """Return the same matrix with every tensor passed through `move`."""
        return SparseRows(
            indptr=move(self.indptr), indices=move(self.indices), values=move(self.values), num_columns=self.num_columns
        )


@dataclass(kw_only=True)
class ItemPlan:
    """The items of a step and how their views are computed from the looked-up rows.

    Attributes:
        union_ids: int64 [U], item ids to look up; the first `num_roles` have a role.
        num_roles: R.
        cooccurrence: [R, U], rows of the normalised O, empty for items that are in no history; or None.
        views: per modality [R, U], rows of A_m.
        centers: per modality [k, R], rows of C_m (cluster means); they multiply views.
        sampled_centers: per modality [k, U], rows of an unbiased estimate of C_m A_m; they multiply looked-up rows. A
            plan has either these or `centers`.
        features: per name float32 [R, d_m]; an all-zero row means that the item has no such feature.
        popularity: float32 [R, 1], larger for an item with more training interactions; or None.
        is_catalogue: whether all items have a role, so that R = U = N and union_ids is 0..N-1.
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
        """Return the same plan with every tensor passed through `move` (to a device, to pinned memory)."""
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
