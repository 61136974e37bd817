"""The dataclasses that recommenders receive and return: the catalogue, channels, and the rows of a step's items.

A model file knows nothing of ranks, tables or loaders. It declares what it needs of an item, and turns looked-up rows
and a batch into vectors for *channels*. The score of user u and item i is sum_c weight_c * <user_c, item_c>, and the
loss is sum_c weight_c * loss_c, where loss_c is a cross entropy or gBCE. Losses, ranking and export are written once,
over channels. A channel may score by a cosine; `Recommender` then scales its vectors so that their inner product is the
score.

Shapes: B targets of a batch, R items with a role, U items of the union, k centres, d width of an
embedding row, d_m width of a raw feature, d_c width of channel c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

from torch import Tensor

from contracts.item_plan import SparseRows
from contracts.modalities import RESERVED

Value = TypeVar("Value")


class CatalogueFeatures(Protocol):
    """The raw features of all items, a block of items at a time."""

    @property
    def num_items(self) -> int:
        """N."""
        ...

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return a feature of items start .. stop - 1, float32 [n, d_m], on the model's device."""
        ...


@dataclass(frozen=True, kw_only=True)
class CatalogueInfo:
    """What a model may know about the data when it is built.

    Attributes:
        num_items: N.
        modalities: modalities of the graph, in a fixed order.
        feature_dims: d_m of each raw feature, by name.
        num_centers: k of each modality.
    """

    num_items: int
    modalities: tuple[str, ...] = ()
    feature_dims: dict[str, int] = field(default_factory=dict)
    num_centers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Channel:
    """One part of the score and of the loss: an inner product and its loss, both multiplied by `weight`.

    Attributes:
        name: the channel's name in records and messages.
        weight: its weight in the score and in the loss.
        is_modality: whether `name` is the name of a modality, which comes from the dataset.
        cosine_temperature: the channel's score is the cosine of user and item vector, divided by this temperature;
            None: the score is their inner product.
    """

    name: str
    weight: float
    is_modality: bool = field(default=False, kw_only=True)
    cosine_temperature: float | None = field(default=None, kw_only=True)

    @property
    def label(self) -> str:
        """The name in records. An old dataset may have a modality with a name that was reserved later."""
        return f"{self.name} (modality)" if self.is_modality and self.name in RESERVED else self.name


@dataclass(kw_only=True)
class ItemRows:
    """The rows and views of the R items with a role, computed from the looked-up rows of a step.

    Attributes:
        item_ids: int64 [R], which items they are.
        ids: [R, d], their ID rows E_id; None for a model without an item table.
        cooccurrence: [R, d], O E_id.
        views: per modality [R, d], A_m E_id.
        center_rows: per modality the [k, R] rows of C_m; `item_views.sparse_product` multiplies by them.
        centers: per modality [k, d], C_m A_m E_id, if it was computed without `center_rows`: sampled in a training
            step, or computed once for a whole ranking.
        features: per name [R, d_m]; an all-zero row means that the item has no such feature.
        popularity: [R, 1], as in `ItemPlan`.
        computed: per name, the values that `per_item` has computed, [R, ...] each.
    """

    item_ids: Tensor
    ids: Tensor | None = None
    cooccurrence: Tensor | None = None
    views: dict[str, Tensor] = field(default_factory=dict)
    center_rows: dict[str, SparseRows] = field(default_factory=dict)
    centers: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)
    popularity: Tensor | None = None
    computed: dict[str, list[Tensor]] = field(default_factory=dict)
    _derived: dict[str, Any] = field(default_factory=dict, repr=False)

    def derived(self, name: str, compute: Callable[[], Value]) -> Value:
        """Return `compute()`, which runs once per step: item and user vectors share its value and autograd graph."""
        if name not in self._derived:
            self._derived[name] = compute()
        return cast(Value, self._derived[name])

    def per_item(self, name: str, compute: Callable[[], list[Tensor]]) -> list[Tensor]:
        """Return `compute()`, a row for each of the R items in every tensor, [R, ...]; it runs once per step.

        An item's row must depend on the item alone. An exported user encoder then holds these rows, computed before,
        instead of the raw features and views that they are computed from.
        """
        if name not in self.computed:
            self.computed[name] = compute()
        return self.computed[name]
