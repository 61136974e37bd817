"""The item features that a system reads, and a linear map of each to the width of an ID row.

Shapes: R items with a role, d_m width of a feature, d width of an ID row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contracts.errors import InputError
from model.cpu.dropout import dropout
from model.protocol import CatalogueInfo, ItemRows


def chosen_features(
    info: CatalogueInfo, system: str, chosen: tuple[str, ...] | None, *, at_least_one: bool = False
) -> tuple[str, ...]:
    """Return the features that a system reads: those that it names, in its order, or all of the catalogue, ascending.

    Args:
        info: the catalogue.
        system: the name of the system, for messages.
        chosen: the features that `model.<system>.features` names; None: every feature of the catalogue.
        at_least_one: whether the system cannot do without features.

    Raises:
        InputError: all features are chosen and there are none, a named feature does not exist, or none is named
            although the system needs one.
    """
    if chosen is None and not info.feature_dims:
        raise InputError(
            f"model.name={system}: the dataset has no item features; prepare it with --features NAME=FILE, or choose "
            "a system that reads none (mdsrec models lists them)"
        )
    names = tuple(sorted(info.feature_dims)) if chosen is None else chosen
    for name in names:
        if name not in info.feature_dims:
            raise InputError(
                f"model.{system}.features={list(names)}: the dataset has no feature {name!r}; {_choice(info)}"
            )
    repeated = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if repeated is not None:
        raise InputError(f"model.{system}.features={list(names)}: names {repeated!r} twice; name each feature once")
    if at_least_one and not names:
        raise InputError(f"model.{system}.features=[]: names no feature; {_choice(info)}")
    return names


def _choice(info: CatalogueInfo) -> str:
    """Return what a message says that the user may do."""
    if not info.feature_dims:
        return "the dataset has none at all; prepare it with --features NAME=FILE"
    return f"name some of {', '.join(sorted(info.feature_dims))}, or null for all"


def numbered(modules: str, features: Sequence[str], first: int = 0) -> dict[str, str]:
    """Return the feature of each module of a list, by the module's name; see `Recommender.module_features`.

    Args:
        modules: the name of the list.
        features: the features of its modules, in order.
        first: the number of the first feature's module.
    """
    return {f"{modules}.{first + number}": feature for number, feature in enumerate(features)}


class FeatureMaps(nn.Module):
    """W_m x_m + b_m for each feature m. An item without a feature has x_m = 0, so that b_m remains.

    Attributes:
        names: the features that are read, ascending.
    """

    def __init__(self, *, info: CatalogueInfo, dim: int, system: str, chosen: tuple[str, ...] | None = None) -> None:
        """Make a map for each feature.

        Args:
            info: the catalogue.
            dim: d.
            system: the name of the system, for messages.
            chosen: the features that `model.<system>.features` names; None: every feature of the catalogue.

        Raises:
            InputError: there are no features, none is named, or a named feature does not exist.
        """
        super().__init__()
        self.names = tuple(sorted(set(chosen_features(info, system, chosen, at_least_one=True))))
        self.maps = nn.ModuleList(nn.Linear(info.feature_dims[name], dim) for name in self.names)

    def forward(self, items: ItemRows, dtype: torch.dtype, rate: float = 0.0) -> list[Tensor]:
        """Return the mapped features of the items, [R, d] each, in the order of `names`.

        Args:
            items: the items of a step.
            dtype: the dtype of the model's parameters.
            rate: dropout rate of the raw features.
        """
        raw = (dropout(items.features[name].to(dtype), rate, self.training) for name in self.names)
        return [linear(x) for linear, x in zip(self.maps, raw, strict=True)]
