"""Reads a fixture: inputs, weights, outputs and gradients of the authors' own code, from a folder beside the checkout.

The folder is the environment variable MDSREC_FIXTURES, by default ../shared/fixtures. It holds a folder for each
system with inputs.npz, weights.npz, outputs.npz and meta.json. Item 0 of a fixture is padding, so its item i is our
item i - 1.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.schema import ModelConfig
from contracts.batch import Batch
from contracts.item_plan import ItemNeeds, ItemPlan
from model.protocol import CatalogueInfo
from tests.model import small_case
from tests.packages import ROOT

Array = np.ndarray[Any, Any]


@dataclass
class Fixture:
    """The numbers of one system.

    Attributes:
        name: the folder's name.
        meta: the content of meta.json.
        inputs: arrays of inputs.npz.
        weights: the authors' parameters, float64, by their names.
        outputs: arrays of outputs.npz.
    """

    name: str
    meta: dict[str, Any]
    inputs: dict[str, Array]
    weights: dict[str, Tensor]
    outputs: dict[str, Array]

    @property
    def options(self) -> dict[str, Any]:
        """The settings that the authors' code was run with."""
        return dict(self.meta["config"])

    @property
    def dim(self) -> int:
        """Width of an item's ID row and of a user's vector."""
        return int(self.options.get("embedding_size") or self.options["hidden_size"])

    @property
    def num_items(self) -> int:
        """Number of items without padding."""
        of_items = [x for name, x in self.outputs.items() if name.startswith("item_vectors")]
        return len(of_items[0] if of_items else self.inputs["text_feat"]) - 1

    @property
    def features(self) -> dict[str, Array]:
        """The item features by name, without the row of padding."""
        names = {key.removesuffix("_feat"): x for key, x in self.inputs.items() if key.endswith("_feat")}
        return {name: x[1:] for name, x in sorted(names.items())}

    @property
    def info(self) -> CatalogueInfo:
        dims = {name: x.shape[1] for name, x in self.features.items()}
        return CatalogueInfo(num_items=self.num_items, modalities=tuple(dims), feature_dims=dims)

    def config(self, name: str, **own: Any) -> ModelConfig:
        """Return our settings with the fixture's sizes, without dropout; `own` is the section of the system."""
        options = self.options
        section = {name: own} if own else {}
        return ModelConfig(
            name=name,
            dim=self.dim,
            num_layers=options["n_layers"],
            num_heads=options.get("n_heads", 1),  # a system without attention has neither
            ffn_dim=options.get("inner_size"),
            activation=options["hidden_act"],
            max_length=options["MAX_ITEM_LIST_LENGTH"],
            dropout=0.0,
            **section,
        )

    def batch(self) -> Batch:
        """Return the fixture's rows as prefix rows in a single group."""
        rows = zip(self.inputs["item_seq"], self.inputs["item_seq_len"], strict=True)
        histories = [[int(item) - 1 for item in items[:length]] for items, length in rows]
        targets = [[int(target) - 1] for target in self.inputs["target"]]
        return small_case.windows(histories, targets, num_items=self.num_items)

    def plan(self, needs: ItemNeeds) -> ItemPlan:
        """Return the plan of the whole catalogue, with the features that a model needs."""
        return ItemPlan(
            union_ids=torch.arange(self.num_items),
            num_roles=self.num_items,
            features={name: torch.from_numpy(self.features[name]) for name in needs.features},
            is_catalogue=True,
        )


def load(name: str) -> Fixture:
    """Return the fixture of a system; skip the test if it is not there."""
    root = Path(os.environ.get("MDSREC_FIXTURES", ROOT.parent / "shared" / "fixtures"))
    folder = root / name
    if not folder.is_dir():
        pytest.skip(f"no numbers of the authors' code: {folder} does not exist (MDSREC_FIXTURES names another folder)")
    arrays = {
        part: dict(np.load(folder / f"{part}.npz", allow_pickle=False)) for part in ("inputs", "weights", "outputs")
    }
    weights = {key: torch.from_numpy(np.asarray(x, dtype=np.float64)) for key, x in arrays["weights"].items()}
    return Fixture(name, json.loads((folder / "meta.json").read_text()), arrays["inputs"], weights, arrays["outputs"])
