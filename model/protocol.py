"""What a recommender is: the items it needs, and channels of user and item vectors.

A model file knows nothing of ranks, tables or loaders. It declares what it needs of an item, and
turns looked-up rows and a batch into *channels*: the score of user u and item i is
sum_c weight_c * <user_c, item_c>, the loss sum_c weight_c * cross_entropy_c. Losses, ranking and
export are written once, over channels.

Shapes: B targets of a batch, R items with a role, U items of the union, k centres, d width of an
embedding row, d_m width of a raw feature, d_c width of channel c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from contracts.item_plan import SparseRows
from contracts.modalities import RESERVED


@dataclass(frozen=True, kw_only=True)
class CatalogueInfo:
    """What a model may know about the data when it is built.

    Attributes:
        num_items: N.
        modalities: modalities of the graph, in a fixed order.
        feature_dims: d_m per name of a raw feature.
        num_centers: k per modality.
    """

    num_items: int
    modalities: tuple[str, ...] = ()
    feature_dims: dict[str, int] = field(default_factory=dict)
    num_centers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Channel:
    """One inner product of the score and one cross entropy of the loss, both times `weight`.

    Attributes:
        is_modality: whether `name` is that of a modality, which the maker of the dataset chose; else it is ours.
    """

    name: str
    weight: float
    is_modality: bool = False

    @property
    def label(self) -> str:
        """What records call it. A dataset from before a name was reserved may have a modality of that name."""
        return f"{self.name} (modality)" if self.is_modality and self.name in RESERVED else self.name


@dataclass(kw_only=True)
class ItemRows:
    """What the graph makes of the looked-up rows of a step, for the R items with a role.

    Attributes:
        ids: [R, d], their ID rows E_id; None for a model without an item table.
        cooccurrence: [R, d], O E_id.
        views: per modality [R, d], A_m E_id.
        center_rows: per modality the [k, R] rows of C_m; apply them with `item_views.sparse_product`.
        centers: per modality [k, d], C_m A_m E_id where that is known without `center_rows`: sampled in a
            training step, or made for a whole ranking.
        features: per name [R, d_m]; an all-zero row is missing.
        popularity: [R, 1], as in `ItemPlan`.
    """

    ids: Tensor | None = None
    cooccurrence: Tensor | None = None
    views: dict[str, Tensor] = field(default_factory=dict)
    center_rows: dict[str, SparseRows] = field(default_factory=dict)
    centers: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)
    popularity: Tensor | None = None
    _derived: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def derived(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """`compute()`, run once per step: item and user vectors share it, values and graph."""
        if name not in self._derived:
            self._derived[name] = compute()
        return self._derived[name]
