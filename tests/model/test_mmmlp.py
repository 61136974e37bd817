"""MMMLP: padding, missing features, the streams it has, and states that see the whole input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.schema import ModelConfig
from contracts.batch import Batch
from contracts.errors import InputError
from model.mmmlp import MixerLayer
from model.protocol import CatalogueInfo
from model.system import RecommenderSystem
from model.zoo import build_model
from tests.model import small_case as case


def system_of(dropout: float = 0.0, **knobs: Any) -> RecommenderSystem:
    config = ModelConfig(
        name="mmmlp", dim=case.DIM, num_heads=2, max_length=case.MAX_LENGTH, dropout=dropout, init_std=0.4, mmmlp=knobs
    )
    torch.manual_seed(0)
    model = case.shaken(build_model(config, case.catalogue(2).info).double())
    return RecommenderSystem(case.Rows(np.random.default_rng(0).normal(size=(case.NUM_ITEMS, case.DIM))), model)


def users_of(system: RecommenderSystem, batch: Batch) -> Tensor:
    items = system.item_rows(case.plan(case.catalogue(2), system.recommender.needs))
    return system.encode_users(items, batch)


def test_neither_padding_nor_the_grouping_changes_a_state() -> None:
    sequences, targets = case.histories()
    system = system_of()
    alone = [users_of(system, case.batch([s], [t])) for s, t in zip(sequences, targets, strict=True)]
    for pad in (0, 7):
        together = users_of(system, case.batch(sequences, targets, pad))
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-9, atol=1e-12)
    grouped = users_of(system, case.windows(sequences, [[t] for t in targets], 3, group_sizes=[5, 4, 3]))
    torch.testing.assert_close(grouped, torch.cat(alone), rtol=1e-9, atol=1e-12)


def test_a_state_sees_the_order_of_the_whole_input() -> None:
    system = system_of()
    one, other = users_of(system, case.batch([[1, 2, 3], [2, 1, 3]], [0, 0]))
    assert not torch.allclose(one, other)


def test_several_states_of_a_sequence_are_no_prefix_rows() -> None:
    with pytest.raises(AssertionError, match="one state only"):
        users_of(system_of(), case.windows([[1, 2, 3]], [[2, 3, 4]]))


@pytest.mark.parametrize(("features", "passes"), [(None, (2, 4, 4)), (("text",), (2, 4)), ((), (2,))])
def test_any_set_of_features_gets_streams(features: tuple[str, ...] | None, passes: tuple[int, ...]) -> None:
    system = system_of(features=features)
    model = system.recommender
    assert model.passes == passes
    assert model.needs.features == (("image", "text") if features is None else features)
    plan = case.plan(case.catalogue(2), model.needs)
    case.loss(system, plan, case.batch(*case.histories())).backward()
    assert all(p.grad is not None and p.grad.any() for p in system.parameters())


def test_chained_passes_differ_from_a_single_one() -> None:
    batch = case.batch(*case.histories())
    chained, single = (users_of(system_of(feature_passes=passes), batch) for passes in (4, 1))
    assert not torch.allclose(chained, single)


def test_an_empty_batch_keeps_every_parameter_connected() -> None:
    system = system_of(dropout=0.3).train()
    plan = case.plan(case.catalogue(2), system.recommender.needs)
    case.loss(system, plan, case.windows([], [])).backward()
    assert all(p.grad is not None and not p.grad.any() for p in system.parameters())


@pytest.mark.parametrize(
    ("features", "having", "message"),
    [
        (None, {}, r"the dataset has no item features; prepare it with --features"),
        (("sound",), {"text": 3}, r"features=\['sound'\]: the dataset has no feature 'sound'; name some of text"),
    ],
)
def test_features_that_the_dataset_lacks_are_refused(features: Any, having: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_model(
            ModelConfig(name="mmmlp", mmmlp={"features": features}), CatalogueInfo(num_items=9, feature_dims=having)
        )


def test_a_mixer_at_one_position_equals_that_position_of_the_whole() -> None:
    config = ModelConfig(name="mmmlp", dim=case.DIM, num_heads=2, max_length=case.MAX_LENGTH, dropout=0.0)
    torch.manual_seed(0)
    mixer = MixerLayer(config, expansion=4).double()
    streams = torch.randn(6, case.MAX_LENGTH, case.DIM, dtype=torch.float64, requires_grad=True)
    positions = torch.tensor([0, 1, 2, case.MAX_LENGTH - 1, 2, 0])
    whole = mixer(streams)[torch.arange(6), positions][:, None]
    alone = mixer.at(streams, positions)
    torch.testing.assert_close(alone, whole, rtol=1e-12, atol=1e-12)
    parameters = [streams, *mixer.parameters()]
    direction = torch.randn_like(whole)
    expected = torch.autograd.grad(whole, parameters, direction)
    torch.testing.assert_close(torch.autograd.grad(alone, parameters, direction), expected, rtol=1e-9, atol=1e-12)
