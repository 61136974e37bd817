"""What parity with the authors' code does not show of MISSRec: missing features, and the interests of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.model_options import ModelConfig
from contracts.errors import InputError
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


def pre_trained(**knobs: object) -> MISSRec:
    model = model_of(objective="contrastive", use_ids=False, temperature=0.5, **knobs)
    with torch.no_grad():
        model.begin_epoch(Features())
    return model


ALL_ITEMS = list(range(NUM_ITEMS))


def contrasted(model: MISSRec, sequences: list[list[int]], targets: list[int], seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    batch = small_case.windows(sequences, [[target] for target in targets], num_items=NUM_ITEMS)
    return model(None, plan(ALL_ITEMS), batch)


def test_pre_training_contrasts_fused_scores_and_copies_and_penalises_both() -> None:
    """Without changes a copy is its input, so its state finds itself among those of the other inputs."""
    model = pre_trained(sequence_weight=0.3, diversity_weight=0.5).eval()
    sequences, targets = [[0, 1], [3, 2, 5], [7]], [2, 8, 6]
    loss = contrasted(model, sequences, targets)
    items = item_rows(None, plan(ALL_ITEMS))
    batch = small_case.windows(sequences, [[target] for target in targets], num_items=NUM_ITEMS)
    users = model.scored_users(items, batch)
    scores = model.pair_scores(torch.cat(users, dim=1), torch.cat(model.scored_items(items), dim=1))[:, targets]
    of_items = torch.nn.functional.cross_entropy(scores, torch.arange(3), reduction="sum")
    of_copies = torch.nn.functional.cross_entropy(users[0] @ users[0].T * 0.5, torch.arange(3), reduction="sum")
    assert model.loss_labels == ("item", "sequence")
    torch.testing.assert_close(model.channel_losses, torch.stack([of_items, of_copies]).detach(), rtol=1e-5, atol=1e-6)
    penalty = model_of(use_ids=False, diversity_weight=0.5).eval()
    penalty.load_state_dict(model.state_dict())
    expected = (of_items + 0.3 * of_copies) / 3 + 2 * penalty.penalty(items, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


def test_a_changed_copy_is_the_input_without_its_dropped_items() -> None:
    model = pre_trained(word_drop_share=0.0).train()
    items = item_rows(None, plan(ALL_ITEMS))
    model.draw_dropped = lambda _group, _share: torch.tensor([[True, True, False], [False, True, True]])
    batch = small_case.windows([[3, 2, 5], [7, 1, 0]], [[1], [2]], num_items=NUM_ITEMS)
    shorter = small_case.windows([[3, 5], [7]], [[1], [2]], num_items=NUM_ITEMS)
    copies, memories = model._changed_copies(items, batch)
    torch.testing.assert_close(copies, model.user_vectors(item_rows(None, plan(ALL_ITEMS)), shorter)[0])
    ((memory, real),), ((expected, expected_real),) = memories, model._encoded(items, shorter)
    torch.testing.assert_close(memory[real], expected[expected_real])


def test_copies_lack_items_or_have_words_dropped_in_training_only() -> None:
    for share, changes in ((0.0, "items"), (1.0, "words")):
        model = pre_trained(word_drop_share=share, sequence_weight=1.0)
        sequences, targets = [[0, 1, 8], [3, 2, 5], [7, 9]], [2, 8, 10]
        found = {contrasted(model.train(), sequences, targets, seed).item() for seed in range(6)}
        assert len(found) > 1, changes
        still = {contrasted(model.eval(), sequences, targets, seed).item() for seed in range(6)}
        assert len(still) == 1, changes


def test_vectors_of_texts_with_dropped_words_take_the_place_of_the_texts() -> None:
    """With a feature for it, the copy's text is that feature's vector, through the map of the text."""
    raw = {**RAW, "words": np.random.default_rng(1).normal(size=RAW["text"].shape)}
    config = ModelConfig(
        name="missrec", dim=8, num_heads=2, max_length=6, dropout=0.0,
        missrec={
            "objective": "contrastive", "use_ids": False, "features": ["image", "text"], "word_drop_share": 1.0,
            "word_drop_modality": "words",
        },
    )  # fmt: skip
    torch.manual_seed(0)
    dims = {**DIMS, "words": DIMS["text"]}
    model = build_model(config, CatalogueInfo(num_items=NUM_ITEMS, feature_dims=dims)).train()
    assert isinstance(model, MISSRec)
    assert model.needs.features == ("image", "text", "words")
    with torch.no_grad():
        model.begin_epoch(Features())

    def rows(text: str) -> ItemPlan:
        features = {"image": raw["image"], "text": raw[text], "words": raw["words"]}
        return ItemPlan(
            union_ids=torch.arange(NUM_ITEMS),
            num_roles=NUM_ITEMS,
            features={name: torch.from_numpy(x).float() for name, x in features.items()},
        )

    model.draw_dropped = lambda group, _: torch.ones(group.count, group.length, dtype=torch.bool)
    batch = small_case.windows([[3, 2, 5], [7, 1]], [[1], [2]], num_items=NUM_ITEMS)
    copies, _ = model._changed_copies(item_rows(None, rows("text")), batch)
    torch.testing.assert_close(copies, model.user_vectors(item_rows(None, rows("words")), batch)[0])


def test_rows_with_the_same_target_are_nobodys_negatives() -> None:
    model = pre_trained(diversity_weight=0.0).eval()
    assert float(contrasted(model, [[0, 1], [3, 2]], [8, 8])) == pytest.approx(0, abs=1e-6)


def test_every_weight_gets_a_gradient_also_on_a_rank_without_targets() -> None:
    model = pre_trained(diversity_weight=0.5, sequence_weight=0.5).train()
    contrasted(model, [[0, 1], [3, 2, 5], [7]], [2, 8, 6]).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    model.zero_grad()
    empty = model(None, plan(ALL_ITEMS), small_case.windows([], [], num_items=NUM_ITEMS))
    empty.backward()
    assert empty == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"words_of": "title"}, r"words_of=title: is none of the features that are read \(image, text\)"),
        ({"word_drop_modality": "words"}, r"word_drop_modality=words: must be a feature .* with vectors of 5 numbers"),
        ({"word_drop_modality": "image"}, r"word_drop_modality=image: must be a feature"),
    ],
)
def test_words_that_cannot_be_dropped_are_refused(knobs: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        model_of(objective="contrastive", use_ids=False, **knobs)
    model_of(objective="contrastive", use_ids=False, word_drop_share=0.0, **knobs)
