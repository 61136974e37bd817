"""UniSRec: its gate's noise, its settings with and without IDs, and what of the catalogue it computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from configs.schema import ModelConfig
from contracts.errors import InputError
from model.protocol import CatalogueInfo
from model.system import RecommenderSystem
from model.unisrec import Adaptor
from model.zoo import build_model
from tests.model import small_case as case
from tests.model.test_windows import check_equal

SETTINGS = {"transductive": {"use_ids": True}, "inductive": {"use_ids": False}}


def system_of(*, dropout: float = 0.0, **knobs: Any) -> RecommenderSystem:
    config = ModelConfig(
        name="unisrec", dim=case.DIM, num_heads=2, max_length=case.MAX_LENGTH, dropout=dropout, init_std=0.4,
        unisrec={"num_experts": 3, "adaptor_dropout": dropout, "temperature": 0.5, **knobs},
    )  # fmt: skip
    torch.manual_seed(0)
    model = case.shaken(build_model(config, case.catalogue(2).info).double())
    rows = case.Rows(np.random.default_rng(0).normal(size=(case.NUM_ITEMS, case.DIM)))
    return RecommenderSystem(rows if model.needs.id_rows else None, model)


def loss_of(system: RecommenderSystem, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    plan = case.plan(case.catalogue(2), system.recommender.needs)
    return case.loss(system, plan, case.batch(*case.histories()))


@pytest.mark.parametrize("knobs", SETTINGS.values(), ids=SETTINGS)
def test_windows_equal_prefix_rows(knobs: dict[str, bool]) -> None:
    check_equal(system_of(gate_noise=False, **knobs))


@pytest.mark.parametrize("knobs", SETTINGS.values(), ids=SETTINGS)
def test_the_gate_is_noisy_in_training_only(knobs: dict[str, bool]) -> None:
    system = system_of(**knobs)
    assert loss_of(system.train(), seed=1) != loss_of(system, seed=2)
    assert torch.equal(loss_of(system, seed=1), loss_of(system, seed=1)), "noise comes from the step's random numbers"
    assert torch.equal(loss_of(system.eval(), seed=1), loss_of(system, seed=2))
    quiet = system_of(gate_noise=False, **knobs)
    assert torch.equal(loss_of(quiet.train(), seed=1), loss_of(quiet, seed=2))


def test_every_parameter_gets_a_gradient_in_training() -> None:
    for noise in (True, False):
        system = system_of(gate_noise=noise).train()
        loss_of(system).backward()
        assert all(p.grad is not None and p.grad.any() for p in system.parameters())


def test_each_position_and_each_candidate_has_noise_of_its_own() -> None:
    system = system_of().train()
    drawn = []

    def draw(like: torch.Tensor) -> torch.Tensor:
        drawn.append(tuple(like.shape))
        return torch.zeros_like(like)

    adaptor = system.recommender.adaptor
    assert isinstance(adaptor, Adaptor)
    adaptor.draw = draw
    without = loss_of(system)
    assert drawn == [(len(case.histories()[0]), case.MAX_LENGTH, 3), (case.NUM_ITEMS, 3)]
    torch.testing.assert_close(without, loss_of(system.eval()), rtol=1e-12, atol=0)


@pytest.mark.parametrize("training", [False, True])
def test_the_adaptor_reads_the_items_of_the_step_only(training: bool) -> None:
    system = system_of().train(training)
    plan = case.plan(case.catalogue(2), system.recommender.needs, roles=[1, 3, 4, 8])
    read = []
    system.recommender.adaptor.experts[0].register_forward_hook(lambda _, inputs, __: read.append(len(inputs[0])))
    case.loss(system, plan, case.batch([[1, 3], [8]], [4, 1], item_plan=plan))
    assert read == ([4, 4] if training else [4]), "in training once for the input and once for the candidates"


def test_without_ids_an_item_is_its_feature() -> None:
    system = system_of(use_ids=False).eval()
    assert system.table is None
    plan = case.plan(case.catalogue(2), system.recommender.needs)
    plan.features["text"][3] = plan.features["text"][8]
    vectors = system.encode_items(system.item_rows(plan))
    assert torch.equal(vectors[3], vectors[8])
    lengths = vectors.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_an_empty_batch_keeps_every_parameter_connected() -> None:
    system = system_of().train()
    plan = case.plan(case.catalogue(2), system.recommender.needs)
    case.loss(system, plan, case.windows([], [])).backward()
    assert all(p.grad is not None and not p.grad.any() for p in system.parameters())


def test_a_feature_that_the_dataset_lacks_is_refused() -> None:
    config = ModelConfig(name="unisrec", unisrec={"modality": "sound"})
    with pytest.raises(InputError, match=r"unisrec\.modality=sound: the dataset has no such item feature"):
        build_model(config, CatalogueInfo(num_items=9, feature_dims={"text": 3, "image": 2}))


def pre_training(**knobs: Any) -> RecommenderSystem:
    return system_of(objective="contrastive", use_ids=False, **knobs)


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["items dropped", "words dropped"])
def test_pre_training_changes_the_copy_only(share: float) -> None:
    system = pre_training(gate_noise=False, word_drop_share=share, item_dropout=0.5, word_dropout=0.5).train()
    found = []
    for seed in (1, 2, 1):
        loss_of(system, seed)
        found.append(system.recommender.channel_losses.tolist())
    assert found[0] == found[2], "the step's random numbers decide"
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]
    assert torch.equal(loss_of(system.eval(), seed=1), loss_of(system, seed=2))


def test_without_a_feature_of_dropped_words_the_vector_has_dropout() -> None:
    """With an item dropout near 1, each item of the copy is the changed one."""
    knobs: dict[str, Any] = {"word_drop_share": 1.0, "item_dropout": 0.999, "gate_noise": False}
    batch = case.batch(*case.histories())
    copies = []
    for rate in (0.0, 0.6):
        system = pre_training(word_dropout=rate, **knobs).train()
        items = system.item_rows(case.plan(case.catalogue(2), system.recommender.needs))
        copies.append(system.recommender._changed_copies(items, batch))
    torch.testing.assert_close(copies[0], system.recommender.user_vectors(items, batch)[0])
    assert not torch.allclose(copies[1], copies[0])


def test_the_feature_of_dropped_words_is_read_in_pre_training_only() -> None:
    info = CatalogueInfo(num_items=9, feature_dims={"text": 3, "words": 3})
    knobs = {"use_ids": False, "word_drop_modality": "words"}
    for objective, read in (("contrastive", ("text", "words")), ("next_item", ("text",))):
        config = ModelConfig(name="unisrec", unisrec={"objective": objective, **knobs})
        assert build_model(config, info).needs.features == read
    with pytest.raises(InputError, match=r"unisrec\.word_drop_modality=sound: the dataset has no such item feature"):
        pre_training(word_drop_modality="sound")
    with pytest.raises(
        InputError, match=r"word_drop_modality=image: its vectors have 5 numbers, and those of .* have 6;"
    ):
        pre_training(word_drop_modality="image")


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_every_parameter_gets_a_gradient_in_pre_training_also_on_a_rank_without_targets(share: float) -> None:
    system = pre_training(word_drop_share=share, sequence_weight=0.5).train()
    loss_of(system).backward()
    assert all(p.grad is not None and p.grad.any() for p in system.parameters())
    system.zero_grad()
    plan = case.plan(case.catalogue(2), system.recommender.needs)
    case.loss(system, plan, case.windows([], [])).backward()
    assert all(p.grad is not None and not p.grad.any() for p in system.parameters())


def test_pre_training_scores_without_ids_and_names_its_losses() -> None:
    system = pre_training()
    assert system.table is None
    assert system.recommender.loss_labels == ("item", "sequence")
    assert [channel.name for channel in system.recommender.channels] == ["text"]
    with pytest.raises(ValueError, match=r"use_ids=true, but objective=contrastive"):
        system_of(objective="contrastive")


def test_fine_tuning_has_every_weight_of_pre_training_and_an_item_table() -> None:
    pre_trained, tuned = pre_training().state_dict(), system_of().state_dict()
    assert set(tuned) - set(pre_trained) == {"table.weight"}
    assert all(tuned[name].shape == weight.shape for name, weight in pre_trained.items())
