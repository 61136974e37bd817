"""GRU4Rec, GRU4RecF and FDSA: their parts against plain NumPy, and what their knobs change.

`parity/` compares the whole models with their authors' code, where its numbers are at hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from configs.systems.gru4rec import GRU4RecConfig
from contracts.errors import InputError
from model.blocks.gru import gru_states, new_gru
from model.blocks.sequence_groups import Sequences
from model.fdsa import FDSA, FieldAttention
from model.gru4recf import GRU4RecF
from model.protocol import CatalogueInfo
from model.system import RecommenderSystem
from model.zoo import build_model
from tests.model import small_case as case

INFO = case.catalogue(2).info


def sigmoid(x: case.Array) -> case.Array:
    return 1 / (1 + np.exp(-x))


def gru_in_numpy(gru: torch.nn.GRU, items: case.Array) -> case.Array:
    """The states of one sequence: r, z = sigmoid(W x + U h), n = tanh(W x + r * U h), h = (1 - z) n + z h."""
    states = items
    for layer in range(gru.num_layers):
        W, U = (getattr(gru, f"weight_{part}_l{layer}").detach().numpy() for part in ("ih", "hh"))
        h, found = np.zeros(gru.hidden_size), []
        for x in states:
            (wr, wz, wn), (ur, uz, un) = np.split(W @ x, 3), np.split(U @ h, 3)
            r, z = sigmoid(wr + ur), sigmoid(wz + uz)
            h = (1 - z) * np.tanh(wn + r * un) + z * h
            found.append(h)
        states = np.stack(found)
    return states


@pytest.mark.parametrize("requested", [[3, 1, 5], [1, 1, 1]], ids=["some states", "the last states"])
def test_states_of_a_gru_are_its_equations_without_padding(requested: list[int]) -> None:
    lengths = [3, 4, 5]
    gru = new_gru(4, GRU4RecConfig(hidden_size=7, num_layers=2)).double()
    items = torch.randn(3, 5, 4, dtype=torch.float64)
    items[0, 3:] = 1e6  # padding holds any finite values
    group = Sequences(
        length=5, lengths=torch.tensor(lengths), num_states=torch.tensor(requested), num_queries=max(requested)
    )
    found = gru_states(gru, items, group).detach().numpy()
    for row, (length, states) in enumerate(zip(lengths, requested, strict=True)):
        expected = gru_in_numpy(gru, items[row, :length].numpy())
        begin = 0 if max(requested) == 5 else length - states  # if all are requested, states are in their items' places
        np.testing.assert_allclose(found[row, : length - begin], expected[begin:], rtol=1e-12)


def test_field_attention_is_a_weighted_mean_of_an_items_features() -> None:
    attention = case.shaken(FieldAttention(4)).double()
    fields = torch.randn(6, 3, 4, dtype=torch.float64)
    W, b, w = (p.detach().numpy() for p in (attention.hidden.weight, attention.hidden.bias, attention.score.weight))
    scores = np.maximum(fields.numpy() @ W.T + b, 0) @ w[0]
    weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    expected = (weights[:, :, None] * fields.numpy()).sum(axis=1)
    np.testing.assert_allclose(attention(fields).detach().numpy(), expected, rtol=1e-12)


def test_gru4recf_drops_ids_and_no_features() -> None:
    """With the ID part of the output map at 0, training and evaluation give the same states."""
    model = build_model(case.config("gru4recf", gru4recf={"dropout": 0.5, "hidden_size": 8}), INFO).double()
    assert isinstance(model, GRU4RecF)
    system = RecommenderSystem(case.Rows(np.random.default_rng(0).normal(size=(case.NUM_ITEMS, case.DIM))), model)
    items = system.item_rows(case.plan(case.catalogue(2), model.needs))
    batch = case.batch(*case.histories())
    differ = []
    for without_ids in (False, True):
        if without_ids:
            model.output.weight.data[:, :8] = 0
        trained, evaluated = (model.train(mode).user_vectors(items, batch)[0] for mode in (True, False))
        differ.append(not torch.equal(trained, evaluated))
    assert differ == [True, False]


@pytest.mark.parametrize(
    ("knobs", "norms", "features"),
    [
        ({}, 3, ("image", "text")),
        ({"share_norms": True}, 1, ("image", "text")),
        ({"features": ["text"], "feature_map": "relu"}, 3, ("text",)),
    ],
)
def test_knobs_of_fdsa(knobs: dict[str, Any], norms: int, features: tuple[str, ...]) -> None:
    model = build_model(case.config("fdsa", fdsa=knobs), INFO)
    assert isinstance(model, FDSA)
    assert len(model.norms) == norms
    assert model.needs.features == features
    assert (model.attention is None) == (len(features) == 1)


def test_the_relu_form_of_fdsa_sets_negative_values_to_zero() -> None:
    found = {}
    for form in ("linear", "relu"):
        torch.manual_seed(0)
        model = build_model(case.config("fdsa", fdsa={"features": ["text"], "feature_map": form}), INFO)
        assert isinstance(model, FDSA)
        rows = torch.zeros(case.NUM_ITEMS, case.DIM)
        items = RecommenderSystem(case.Rows(rows.numpy()), model).item_rows(case.plan(case.catalogue(2), model.needs))
        found[form] = model._feature_vectors(items, torch.float32)
    assert (found["linear"] < 0).any()
    assert torch.equal(found["relu"], found["linear"].clamp(min=0))


@pytest.mark.parametrize(
    ("system", "knobs", "info", "message"),
    [
        ("gru4recf", {}, CatalogueInfo(num_items=5), r"model.name=gru4recf: the dataset has no item features"),
        ("fdsa", {}, CatalogueInfo(num_items=5), r"model.name=fdsa: the dataset has no item features; .*--features"),
        (
            "fdsa",
            {"features": ["sound"]},
            INFO,
            r"model.fdsa.features=\['sound'\]: .* no feature 'sound'; .*image, text",
        ),
        ("fdsa", {"features": []}, INFO, r"model.fdsa.features=\[\]: names no feature; .*image, text"),
    ],
)
def test_features_that_are_not_there_are_named(
    system: str, knobs: dict[str, Any], info: CatalogueInfo, message: str
) -> None:
    sections = {system: knobs} if knobs else {}
    with pytest.raises(InputError, match=message):
        build_model(case.config(system, **sections), info)
