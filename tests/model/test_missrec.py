"""What parity with the authors' code does not show of MISSRec: missing features, and the interests of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.model_options import ModelConfig
from contracts.item_plan import ItemPlan
from model import missrec
from model.blocks import interest_transformer
from model.blocks.item_views import item_rows
from model.missrec import MISSRec
from model.protocol import CatalogueInfo
from model.zoo import build_model
from tests.model import small_case

NUM_ITEMS, DIMS = 11, {"image": 3, "text": 5}
WITHOUT_IMAGE, WITHOUT_ANY = [2, 4], [6]
RAW = {name: np.random.default_rng(0).normal(size=(NUM_ITEMS, dim)) for name, dim in DIMS.items()}
RAW["image"][WITHOUT_IMAGE + WITHOUT_ANY] = 0
RAW["text"][WITHOUT_ANY] = 0


class Features:
    num_items = NUM_ITEMS

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        return torch.from_numpy(RAW[name][start:stop]).float()


def model_of(**knobs: object) -> MISSRec:
    config = ModelConfig(name="missrec", dim=8, num_heads=2, max_length=6, dropout=0.0, missrec={**knobs})
    torch.manual_seed(0)
    model = build_model(config, CatalogueInfo(num_items=NUM_ITEMS, feature_dims=DIMS))
    assert isinstance(model, MISSRec)
    for adaptor in model.adaptors:
        torch.nn.init.normal_(adaptor.bias)
    return model


def plan(ids: list[int]) -> ItemPlan:
    features = {name: torch.from_numpy(x[ids]).float() for name, x in RAW.items()}
    return ItemPlan(union_ids=torch.tensor(ids), num_roles=len(ids), features=features)


def test_each_item_has_the_interest_nearest_to_its_adapted_feature() -> None:
    model = model_of(use_ids=False)
    with torch.no_grad():
        model.begin_epoch(Features())
    assert len(model.interests) == 1 + NUM_ITEMS  # half of two features of each item
    assert not model.interests[0].any()
    for column, (name, raw) in enumerate(RAW.items()):
        adapted = model.adaptors[column](torch.from_numpy(raw).float())
        for item in range(NUM_ITEMS):
            found = int(model.interest_of[item, column])
            if not raw[item].any():
                assert found == 0, (name, item)
            else:
                distances = (model.interests[1:] - adapted[item]).norm(dim=1)
                assert distances[found - 1] <= distances.min() + 1e-5, (name, item)


def test_density_peaks_give_every_feature_an_interest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(missrec, "minibatch_kmeans")
    model = model_of(use_ids=False, clustering="density_peaks", interest_ratio=0.2)
    with torch.no_grad():
        model.begin_epoch(Features())
    for column, raw in enumerate(RAW.values()):
        assert torch.equal(model.interest_of[:, column] > 0, torch.from_numpy(raw.any(axis=1)))
    assert len(model.interest_of.unique()) == 1 + 5  # none, and a fifth of two features of 11 items


def test_with_bias_every_item_has_interests() -> None:
    model = model_of(missing_features="bias")
    with torch.no_grad():
        model.begin_epoch(Features())
    assert model.interest_of.min() > 0


def test_a_missing_feature_counts_nowhere() -> None:
    """Its map's bias changes neither the user's vector nor the item's."""
    model = model_of(use_ids=False).eval()
    with torch.no_grad():
        model.begin_epoch(Features())
    ids = [2, 4, 6]
    batch = small_case.windows([[0, 1], [2, 0]], [[1], [2]], num_items=3)

    def outputs() -> list[Tensor]:
        items = item_rows(None, plan(ids))
        return [*model.scored_users(items, batch), *model.scored_items(items)]

    before = outputs()
    assert not before[2].any(), "no item has an image"
    assert before[3][:2].any(dim=1).all(), "all but the last have a text"
    torch.nn.init.normal_(model.adaptors[0].bias, std=5)
    assert all(torch.equal(x, y) for x, y in zip(outputs(), before, strict=True))


def test_an_interest_counts_once_however_many_items_have_it() -> None:
    model = model_of(use_ids=False).eval()
    with torch.no_grad():
        model.begin_epoch(Features())
    items = item_rows(None, plan(list(range(NUM_ITEMS))))
    once = small_case.windows([[0, 1]], [[2]], num_items=NUM_ITEMS)
    often = small_case.windows([[0, 1, 0, 1, 1]], [[2]], num_items=NUM_ITEMS)

    def encoded(batch: object) -> Tensor:
        ((memory, is_interest),) = model._encoded(items, batch)  # type: ignore[arg-type]
        return memory[is_interest]

    torch.testing.assert_close(encoded(often), encoded(once), rtol=1e-5, atol=1e-6)


def test_the_penalty_is_the_mean_square_of_mean_interests() -> None:
    model = model_of(use_ids=False, diversity_weight=0.5).eval()
    with torch.no_grad():
        model.begin_epoch(Features())
    items = item_rows(None, plan(list(range(NUM_ITEMS))))
    batch = small_case.windows([[0, 1], [3], [6]], [[2], [1], [0]], num_items=NUM_ITEMS)
    expected = torch.zeros(())
    for memory, is_interest in model._encoded(items, batch):
        for encoded, real in zip(memory, is_interest, strict=True):
            expected = expected + 0.5 * (encoded[real].mean(dim=0) ** 2).sum() / 8
    torch.testing.assert_close(torch.as_tensor(model.penalty(items, batch)), expected)


def test_each_layer_has_dropout_between_the_maps_of_its_feed_forward_too(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, float]] = []

    def noted(x: Tensor, rate: float, training: bool) -> Tensor:
        calls.append((x.shape[-1], rate if training else 0.0))
        return x

    monkeypatch.setattr(interest_transformer, "dropout", noted)
    config = ModelConfig(name="missrec", dim=8, num_heads=2, ffn_dim=20, dropout=0.3)
    layer = interest_transformer.InterestLayer(config)
    for mode, rate in ((True, 0.3), (False, 0.0)):
        calls.clear()
        layer.train(mode).after(torch.randn(2, 3, 8), torch.randn(2, 3, 8), config.dropout)
        assert calls == [(8, rate), (20, rate), (8, rate)]
