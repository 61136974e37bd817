"""BERT4Rec against RecBole's code without its quirks: states, scores, losses of masked items, and every gradient.

RecBole's input has MAX_ITEM_LIST_LENGTH places, of which one is for the mask, so its max_length is one more than ours.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts.batch import Batch
from model.protocol import ItemRows
from model.recommender import Recommender
from model.zoo import build_model
from tests.model import small_case
from tests.model.parity import names
from tests.model.parity.comparison import ATOL, RTOL, check_parity
from tests.model.parity.fixture import Fixture, load
from tests.model.parity.names import Weights


def model_of(fixture: Fixture) -> Recommender:
    config = fixture.config("bert4rec", position_zero="oldest")
    return build_model(config.model_copy(update={"max_length": config.max_length - 1}), fixture.info)


def own(official: Weights) -> Weights:
    return {
        "mask": official["item_embedding.weight"][-1],
        "output_bias": official["output_bias"][1:],
        "positions.weight": official["position_embedding.weight"],
        **names.same(official, "input_norm", "LayerNorm"),
        **names.transformer_layers(official, "layers", "trm_encoder"),
        **names.same(official, "output", "output_ffn"),
        **names.same(official, "output_norm", "output_ln"),
    }


def ours(official: Weights) -> Weights:
    rows = {"table.weight": official["item_embedding.weight"][1:-1]}
    return rows | {f"recommender.{name}": x for name, x in own(official).items()}


def ranked(fixture: Fixture) -> Batch:
    """The inputs before the mask that the fixture puts after them, and any targets."""
    rows = zip(fixture.inputs["append_item_seq"], fixture.inputs["append_mask_index"], strict=True)
    histories = [[int(item) - 1 for item in items[:length]] for items, length in rows]
    return small_case.windows(histories, [[0]] * len(histories), num_items=fixture.num_items)


def trained(fixture: Fixture, mask: str) -> Batch:
    rows = zip(fixture.inputs["item_seq"], fixture.inputs["item_seq_len"], strict=True)
    sequences = [[int(item) - 1 for item in items[:length]] for items, length in rows]
    masks = [np.flatnonzero(places).tolist() for places in fixture.inputs[mask]]
    # In two groups, so that a group's length is not that of the others.
    halves = [2, len(sequences) - 2]
    return small_case.masked(sequences, masks, num_items=fixture.num_items, group_sizes=halves)


@pytest.mark.parametrize(("mask", "prefix"), [("mask", ""), ("mask_last", "mask_last_")])
def test_parity_bert4rec(mask: str, prefix: str) -> None:
    fixture = load("BERT4Rec")
    fixture.outputs["scores_append_without_pad"] = fixture.outputs["scores_append"][:, 1:]
    check_parity(
        fixture,
        model_of(fixture),
        ours,
        states="user_states_append",
        scores="scores_append_without_pad",
        loss=f"{prefix}loss_clean",
        gradients=f"{prefix}grad_clean",
        ranked=ranked(fixture),
        trained=trained(fixture, mask),
    )


@pytest.mark.parametrize(("mask", "key"), [("mask", "hidden"), ("mask_last", "mask_last_hidden")])
def test_parity_of_bert4recs_states_at_masks(mask: str, key: str) -> None:
    fixture = load("BERT4Rec")
    model = model_of(fixture).double()
    items = fixture.weights["item_embedding.weight"][1:-1]

    model.load_state_dict(own(fixture.weights))
    with torch.no_grad():
        found = model.user_vectors(ItemRows(item_ids=torch.arange(len(items)), ids=items), trained(fixture, mask))[
            0
        ].numpy()
    expected = fixture.outputs[key][fixture.inputs[mask]]
    np.testing.assert_allclose(found[:, : fixture.dim], expected, rtol=RTOL, atol=ATOL)
