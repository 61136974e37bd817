"""The tower and SASRec against a plain transcription."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from contracts.errors import InputError
from model.blocks.interest_centers import center_attention
from model.blocks.sequence_encoder import SequenceEncoder, TransformerLayer, attention, initialise
from model.blocks.sequence_groups import Sequences
from model.protocol import CatalogueInfo
from model.system import RecommenderSystem
from model.zoo import build_model
from tests.model import small_case as case


def joined(weights: dict[str, case.Array], rows: case.Array, features: dict[str, case.Array]) -> case.Array:
    """The items of SASRecF's histories."""
    parts = [rows]
    for number, name in enumerate(sorted(features)):
        parts.append(features[name] @ weights[f"projections.{number}.weight"].T + weights[f"projections.{number}.bias"])
    return np.hstack(parts) @ weights["join.weight"].T + weights["join.bias"]


@pytest.mark.parametrize("name", ["sasrec", "sasrecf"])
def test_sasrec_agrees_with_numpy(name: Literal["sasrec", "sasrecf"]) -> None:
    table = np.random.default_rng(0).normal(size=(case.NUM_ITEMS, case.DIM))
    cat = case.catalogue(2)
    model = build_model(case.config(name, num_layers=3), cat.info).double()
    system = RecommenderSystem(case.Rows(table), case.shaken(model))
    histories, targets = case.histories()
    plan, batch = case.plan(cat, system.recommender.needs), case.batch(histories, targets, pad=4)
    shape = case.config("sasrec", num_layers=3)

    def oracle_scores(weights: dict[str, case.Array], rows: case.Array) -> case.Array:
        tower = case.numpy_tower(weights, "encoder.", shape)
        seen = joined(weights, rows, cat.features) if name == "sasrecf" else rows
        return np.stack([tower(seen[h])[-1][-1] for h in histories]) @ rows.T

    weights = {name: p.numpy().copy() for name, p in system.recommender.state_dict().items()}
    users, items = system.encode_users(system.item_rows(plan), batch), system.encode_items(system.item_rows(plan))
    np.testing.assert_allclose((users @ items.T).detach().numpy(), oracle_scores(weights, table), rtol=1e-9, atol=1e-12)

    case.loss(system, plan, batch).backward()
    rng = np.random.default_rng(1)
    directions = {name: rng.normal(size=p.shape) for name, p in system.named_parameters()}

    def loss_at(step: float) -> float:
        moved = {n: x + step * directions[f"recommender.{n}"] for n, x in weights.items()}
        y = oracle_scores(moved, table + step * directions["table.weight"])
        return float(np.mean(np.log(np.exp(y).sum(1)) - y[np.arange(len(y)), targets]))

    np.testing.assert_allclose(case.loss(system, plan, batch).item(), loss_at(0), rtol=1e-10)
    np.testing.assert_allclose(case.derivative(system, directions), case.slope(loss_at), rtol=1e-6, atol=1e-8)


def test_sasrecf_needs_features() -> None:
    with pytest.raises(InputError, match=r"sasrecf: the dataset has no item features; .*--features NAME=FILE"):
        build_model(case.config("sasrecf"), CatalogueInfo(num_items=case.NUM_ITEMS))


def test_no_state_sees_a_later_item() -> None:
    torch.manual_seed(1)
    encoder = SequenceEncoder(case.config(num_layers=3)).double()
    items = torch.randn(2, 6, case.DIM, dtype=torch.float64)
    changed = items.clone()
    changed[:, 4:] = torch.randn(2, 2, case.DIM, dtype=torch.float64)
    whole, last = (
        Sequences(length=6, lengths=torch.tensor([6, 6]), num_states=torch.tensor([6, 6]), num_queries=6),
        torch.tensor([1, 1]),
    )
    before, after = encoder(items, whole), encoder(changed, whole)
    for old, new in zip(before.entering, after.entering, strict=True):
        assert torch.equal(old[:, :4], new[:, :4])
        assert not torch.allclose(old[:, 4:], new[:, 4:])
    # A prefix is encoded as the whole sequence is at that position.
    prefix = encoder(
        changed[:, :3], Sequences(length=3, lengths=torch.tensor([3, 3]), num_states=last, num_queries=1)
    ).states[:, 0]
    cut = encoder(items, Sequences(length=6, lengths=torch.tensor([3, 3]), num_states=last, num_queries=1)).states[:, 0]
    some = encoder(
        items, Sequences(length=6, lengths=torch.tensor([4, 6]), num_states=torch.tensor([2, 3]), num_queries=3)
    ).states
    torch.testing.assert_close(cut, prefix, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(before.states[:, 2], prefix, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(some[0, :2], before.states[0, 2:4], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(some[1], before.states[1, 3:], rtol=1e-12, atol=1e-12)
    assert torch.allclose(before.states[:, :4], after.states[:, :4], rtol=1e-12)
    assert not torch.allclose(before.states[:, 4:], after.states[:, 4:])


def test_attention_with_dropout_is_right_on_average_and_without_it_the_fused_kernel() -> None:
    k, v = torch.randn(2, 5, 2, 4, 6, dtype=torch.float64).unbind()
    q = torch.randn(5, 2, 4, 6, dtype=torch.float64)
    visible = torch.arange(4) < torch.tensor([1, 2, 3, 4, 4])[:, None, None].expand(-1, 4, -1)
    for mask in (None, visible):
        fused = attention(q, (k, v), mask, 0.0)
        many = None if mask is None else mask.repeat(4000, 1, 1)
        every = attention(q.repeat(4000, 1, 1, 1), (k.repeat(4000, 1, 1, 1), v.repeat(4000, 1, 1, 1)), many, 0.3)
        draws = every.unflatten(0, (4000, 5))
        assert ((draws.mean(0) - fused).abs() < 5 * draws.std(0) / 4000**0.5 + 1e-12).all()


@pytest.mark.parametrize("num_keys", [4, 40])
def test_centres_attend_as_any_query_does(num_keys: int) -> None:
    """Few keys take the projections upon themselves, many do not."""
    layer = case.shaken(TransformerLayer(case.config(dim=12, num_heads=2)).double())
    k, v = torch.randn(2, 5, 2, num_keys, 6, dtype=torch.float64).unbind()
    seen = torch.tensor([[1, 2], [3, num_keys], [num_keys, 4], [2, 1], [1, 1]])  # keys that each of two states sees
    visible = torch.arange(num_keys) < seen[:, :, None]
    for states in (torch.randn(5, 2, 3, 12, dtype=torch.float64), torch.randn(1, 1, 3, 12, dtype=torch.float64)):
        alike = states.expand(5, 2, 3, 12).flatten(1, 2)
        expected = layer.attend(alike, (k, v), visible.repeat_interleave(3, dim=1), 0.0).unflatten(1, (2, 3))
        torch.testing.assert_close(center_attention(layer, states, (k, v), visible, 0.0), expected)
        users = states if len(states) == 1 else states.repeat(4000, 1, 1, 1)
        keys, values = k.repeat(4000, 1, 1, 1), v.repeat(4000, 1, 1, 1)
        every = center_attention(layer, users, (keys, values), visible.repeat(4000, 1, 1), 0.3)
        draws = every.unflatten(0, (4000, 5))
        assert ((draws.mean(0) - expected).abs() < 5 * draws.std(0) / 4000**0.5 + 1e-12).all()


def test_initial_weights() -> None:
    encoder = SequenceEncoder(case.config(dim=64, num_heads=4))
    initialise(encoder, 0.02)
    for name, parameter in encoder.named_parameters():
        if "norm" in name:
            assert (parameter == (1 if name.endswith("weight") else 0)).all()
        elif name.endswith("bias"):
            assert not parameter.any()
        else:
            assert 0.015 < parameter.std() < 0.025
    assert encoder.layers[0].expand.weight.shape == (256, 64)
