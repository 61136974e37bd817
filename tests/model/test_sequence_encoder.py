"""The tower and SASRec against a plain transcription."""

from __future__ import annotations

import numpy as np
import torch

from model.protocol import CatalogueInfo
from model.sequence_encoder import SequenceEncoder, attention, initialise
from model.system import RecommenderSystem
from model.zoo import build_model
from tests.model import small_case as case


def sasrec() -> tuple[RecommenderSystem, case.Array]:
    table = np.random.default_rng(0).normal(size=(case.NUM_ITEMS, case.DIM))
    model = build_model(case.config("sasrec", num_layers=3), CatalogueInfo(case.NUM_ITEMS)).double()
    return RecommenderSystem(case.Rows(table), case.shaken(model)), table


def test_sasrec_agrees_with_numpy() -> None:
    system, table = sasrec()
    cat = case.catalogue(2)
    histories, targets = case.histories()
    plan, batch = case.plan(cat, system.recommender.needs), case.batch(histories, targets, pad=4)
    shape = case.config("sasrec", num_layers=3)

    def oracle_scores(weights: dict[str, case.Array], rows: case.Array) -> case.Array:
        tower = case.numpy_tower(weights, "encoder.", shape)
        return np.stack([tower(rows[h])[-1][-1] for h in histories]) @ rows.T

    weights = {name: p.numpy().copy() for name, p in system.recommender.state_dict().items()}
    users, items = system.encode_users(system.item_rows(plan), batch), system.encode_items(system.item_rows(plan))
    np.testing.assert_allclose((users @ items.T).detach().numpy(), oracle_scores(weights, table), rtol=1e-9, atol=1e-12)

    system(plan, batch).backward()
    rng = np.random.default_rng(1)
    directions = {name: rng.normal(size=p.shape) for name, p in system.named_parameters()}

    def loss_at(step: float) -> float:
        moved = {n: x + step * directions[f"recommender.{n}"] for n, x in weights.items()}
        y = oracle_scores(moved, table + step * directions["table.weight"])
        return float(np.mean(np.log(np.exp(y).sum(1)) - y[np.arange(len(y)), targets]))

    np.testing.assert_allclose(system(plan, batch).item(), loss_at(0), rtol=1e-10)
    np.testing.assert_allclose(case.derivative(system, directions), case.slope(loss_at), rtol=1e-6, atol=1e-8)


def test_no_state_sees_a_later_item() -> None:
    torch.manual_seed(1)
    encoder = SequenceEncoder(case.config(num_layers=3)).double()
    items = torch.randn(2, 6, case.DIM, dtype=torch.float64)
    changed = items.clone()
    changed[:, 4:] = torch.randn(2, 2, case.DIM, dtype=torch.float64)
    lengths = torch.tensor([6, 6])
    before, after = encoder(items, lengths), encoder(changed, lengths)
    for old, new in zip(before.entering, after.entering, strict=True):
        assert torch.equal(old[:, :4], new[:, :4])
        assert not torch.allclose(old[:, 4:], new[:, 4:])
    # A prefix is encoded as the whole sequence is at that position.
    prefix = encoder(changed[:, :3], torch.tensor([3, 3]))
    cut = encoder(items, torch.tensor([3, 3]))
    torch.testing.assert_close(prefix.last, cut.last, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(before.last, after.last)


def test_attention_with_dropout_is_right_on_average_and_without_it_the_fused_kernel() -> None:
    q, k, v = torch.randn(3, 5, 2, 4, 6, dtype=torch.float64).unbind()
    visible = torch.arange(4) < torch.tensor([1, 2, 3, 4, 4])[:, None, None, None]
    for mask in (None, visible):
        fused = attention(q, k, v, mask, 0.0)
        torch.testing.assert_close(attention(q, k, v, mask, 1e-9), fused)
        draws = torch.stack([attention(q, k, v, mask, 0.3) for _ in range(4000)])
        assert ((draws.mean(0) - fused).abs() < 5 * draws.std(0) / 4000**0.5 + 1e-12).all()
    shared = attention(q[:1], k, v, visible, 0.0)
    torch.testing.assert_close(shared, attention(q[:1].expand(5, -1, -1, -1), k, v, visible, 1e-9))


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
