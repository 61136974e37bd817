"""Reads inputs, weights and results that were recorded from authors' own code, and compares ours with them.

The recordings are not part of the project. The environment variable MDSREC_FIXTURES names their folder; tests that need
it are skipped where it is absent. Item 0 of a recording is padding, and its item j + 1 is our item j.
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
from torch import Tensor, nn

from contracts.batch import Batch, SequenceGroup
from contracts.item_plan import ItemPlan

ROOT = Path(__file__).resolve().parents[2]
CLOSE = {"rtol": 1e-9, "atol": 1e-11}
Array = np.ndarray[Any, Any]
# A parameter, or its part along the first dimension, that is one of the authors' parameters.
Part = tuple[nn.Parameter, slice | int]
WHOLE = slice(None)


@dataclass
class Recording:
    """One recorded system; `inputs`, `weights` and `outputs` are arrays by name, `meta` is its description."""

    inputs: dict[str, Array]
    weights: dict[str, Array]
    outputs: dict[str, Array]
    meta: dict[str, Any]

    def batch(self) -> Batch:
        """One group of prefix rows, padded to the recorded length."""
        sequences = np.maximum(self.inputs["item_seq"] - 1, 0)
        lengths = torch.from_numpy(self.inputs["item_seq_len"])
        count, length = sequences.shape
        return Batch(
            users=torch.arange(count),
            history=torch.from_numpy(sequences.reshape(-1)),
            lengths=lengths,
            num_states=torch.ones_like(lengths),
            groups=(SequenceGroup(count, length, 1),),
            states=torch.arange(count),
            targets=torch.from_numpy(self.inputs["target"] - 1),
            positions=lengths,
            num_global_targets=count,
        )

    def plan(self, **features: Array) -> ItemPlan:
        """The plan of the whole catalogue with recorded features, whose row 0 is padding."""
        num_items = self.outputs["scores_without_pad"].shape[1]
        of_items = {name: torch.from_numpy(rows[1:]) for name, rows in features.items()}
        return ItemPlan(union_ids=torch.arange(num_items), num_roles=num_items, features=of_items, is_catalogue=True)


def recording(name: str) -> Recording:
    folder = Path(os.environ.get("MDSREC_FIXTURES") or ROOT.parent / "shared" / "fixtures") / name
    if not folder.is_dir():
        pytest.skip(f"no recordings of authors' code: {folder} is absent; set MDSREC_FIXTURES")
    arrays = [dict(np.load(folder / f"{kind}.npz", allow_pickle=False)) for kind in ("inputs", "weights", "outputs")]
    return Recording(*arrays, json.loads((folder / "meta.json").read_text()))


def copy_weights(parts: dict[str, Part], weights: dict[str, Array]) -> None:
    """Copy the recorded weights into our parameters, every element of which must get one."""
    filled = {id(parameter): torch.zeros_like(parameter) for parameter, _ in parts.values()}
    with torch.no_grad():
        for name, (parameter, part) in parts.items():
            parameter[part].copy_(torch.from_numpy(weights[name]))
            filled[id(parameter)][part] += 1
    assert all((count == 1).all() for count in filled.values())


def check_gradients(parts: dict[str, Part], recorded: Recording, loss: str) -> None:
    """Compare the gradients that `backward` left: each recorded array, and the norm of every parameter's."""
    found = {}
    for name, (parameter, part) in parts.items():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        found[name] = gradient[part].numpy()
    norms = recorded.meta["grad_norms"][loss]
    assert set(norms) == set(found)
    for name, norm in norms.items():
        np.testing.assert_allclose(np.linalg.norm(found[name]), norm, **CLOSE, err_msg=name)
    prefix = loss.replace("loss", "grad", 1) + "/"
    arrays = {key.removeprefix(prefix): rows for key, rows in recorded.outputs.items() if key.startswith(prefix)}
    assert arrays
    for name, rows in arrays.items():
        expected = rows[1:] if name == "item_embedding.weight" else rows
        np.testing.assert_allclose(found[name], expected, **CLOSE, err_msg=name)


def check_close(found: Tensor, expected: Array) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, **CLOSE)


def module_parts(theirs: str, ours: nn.Module) -> dict[str, Part]:
    """The parameters of one of our modules that has the same parameters as one of theirs."""
    return {f"{theirs}.{name}": (parameter, WHOLE) for name, parameter in ours.named_parameters()}
