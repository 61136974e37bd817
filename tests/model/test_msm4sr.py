"""MSM4SR: missing features, what is random when, its settings, and what of the catalogue its adaptors read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from configs.schema import ModelConfig
from contracts.errors import InputError
from contracts.item_plan import ItemPlan
from model.msm4sr import MSM4SR
from model.protocol import CatalogueInfo
from model.system import RecommenderSystem
from model.zoo import build_model
from tests.model import small_case as case

OBJECTIVES = ("next_item", "contrastive")
NO_IMAGE = (5, *case.NOWHERE)  # of `case.catalogue`


def system_of(*, dropout: float = 0.0, **knobs: Any) -> RecommenderSystem:
    config = ModelConfig(
        name="msm4sr", dim=case.DIM, num_heads=2, max_length=case.MAX_LENGTH, dropout=dropout, init_std=0.4,
        msm4sr={"num_experts": 3, "adaptor_dropout": dropout, "temperature": 0.5, **knobs},
    )  # fmt: skip
    torch.manual_seed(0)
    model = case.shaken(build_model(config, case.catalogue(2).info).double())
    rows = case.Rows(np.random.default_rng(0).normal(size=(case.NUM_ITEMS, case.DIM)))
    return RecommenderSystem(rows if model.needs.id_rows else None, model)


def plan_of(system: RecommenderSystem, roles: list[int] | None = None) -> ItemPlan:
    return case.plan(case.catalogue(2), system.recommender.needs, roles)


def loss_of(system: RecommenderSystem, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return case.loss(system, plan_of(system), case.batch(*case.histories()))


@pytest.mark.parametrize("knobs", [{}, {"item_dropout": 0.0}, {"mixup": 0.0}], ids=["both", "mixup", "drop"])
def test_pre_training_changes_inputs_in_training_only(knobs: dict[str, float]) -> None:
    system = system_of(objective="contrastive", **knobs)
    assert loss_of(system.train(), seed=1) != loss_of(system, seed=2)
    assert torch.equal(loss_of(system, seed=1), loss_of(system, seed=1)), "the step's random numbers decide"
    assert torch.equal(loss_of(system.eval(), seed=1), loss_of(system, seed=2))
    quiet = system_of(objective="contrastive", item_dropout=0.0, mixup=0.0)
    assert torch.equal(loss_of(quiet.train(), seed=1), loss_of(quiet, seed=2))
    tuning = system_of(objective="next_item", **knobs)
    assert torch.equal(loss_of(tuning.train(), seed=1), loss_of(tuning, seed=2))


def test_a_batch_draws_its_shares_once_between_0_and_the_knobs() -> None:
    system = system_of(objective="contrastive", item_dropout=0.3, mixup=0.6).train()
    shares: dict[str, list[float]] = {"draw_dropped": [], "draw_exchanged": []}
    for name, found in shares.items():
        draw = getattr(system.recommender, name)
        setattr(
            system.recommender, name, lambda group, share, f=found, d=draw: (f.append(float(share)), d(group, share))[1]
        )
    batch = case.windows([[1, 2], [3, 4, 5], [6]], [[3], [4], [5]], group_sizes=[1, 1, 1])
    for seed in range(50):
        torch.manual_seed(seed)
        case.loss(system, plan_of(system), batch)
    for name, most in (("draw_dropped", 0.3), ("draw_exchanged", 0.6)):
        of_batches = np.array(shares[name]).reshape(50, 3)
        assert (of_batches == of_batches[:, :1]).all()
        assert 0 <= of_batches.min() < 0.2 * most
        assert 0.8 * most < of_batches.max() <= most


@pytest.mark.parametrize("knobs", [{}, {"project_states": True}], ids=["plain", "projected"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_parameter_gets_a_gradient_also_on_a_rank_without_targets(objective: str, knobs: dict[str, bool]) -> None:
    system = system_of(objective=objective, **knobs).train()
    loss_of(system).backward()
    assert all(p.grad is not None and p.grad.any() for p in system.parameters())
    system.zero_grad()
    empty = case.loss(system, plan_of(system), case.windows([], []))
    empty.backward()
    assert empty == 0
    assert all(p.grad is not None and not p.grad.any() for p in system.parameters())


def test_without_ids_a_missing_feature_is_a_zero_vector_or_the_adaptors_bias() -> None:
    for masked in (True, False):
        system = system_of(objective="contrastive", mask_missing=masked).eval()
        assert system.table is None
        vectors = dict(
            zip(("text", "image"), system.recommender.item_vectors(system.item_rows(plan_of(system))), strict=True)
        )
        lacking = vectors["image"][list(NO_IMAGE)]
        assert lacking.any() == (not masked)
        assert torch.equal(lacking, lacking[:1].expand_as(lacking))
        others = [item for item in range(case.NUM_ITEMS) if item not in NO_IMAGE]
        assert vectors["image"][others].any(dim=1).all()


def test_a_target_without_a_feature_has_the_score_0_in_the_loss_of_it() -> None:
    system = system_of(objective="contrastive").eval()
    histories, targets = [[1, 3], [4], [8, 9, 1], [7]], [3, 0, 9, NO_IMAGE[0]]
    plan, batch = plan_of(system), case.batch(histories, targets)
    case.loss(system, plan, batch)
    items = system.item_rows(plan)
    users, vectors = system.recommender.scored_users(items, batch)[1], system.recommender.scored_items(items)[1]
    scores = users @ vectors[targets].T
    assert not scores[:, 3].any()
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(4), reduction="sum")
    torch.testing.assert_close(system.recommender.channel_losses[1], expected.detach(), rtol=1e-12, atol=0)
    assert system.recommender.loss_labels == ("text", "image", "cross-modal")


def test_rows_with_the_same_target_are_no_negatives() -> None:
    system = system_of(objective="contrastive").eval()
    case.loss(system, plan_of(system), case.batch([[1, 3], [4, 2]], [9, 9]))
    assert system.recommender.channel_losses.tolist() == pytest.approx([0, 0, 0])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("training", [False, True])
def test_each_adaptor_reads_the_items_of_the_step_once(objective: str, training: bool) -> None:
    system = system_of(objective=objective).train(training)
    plan = plan_of(system, [1, 3, 4, 8])
    read: list[int] = []
    for adaptor in system.recommender.adaptors:
        adaptor.experts.register_forward_hook(lambda _, inputs, __: read.append(len(inputs[0])))
    case.loss(system, plan, case.batch([[1, 3], [8]], [4, 1], item_plan=plan))
    assert read == [4, 4]


def test_positions_in_a_plan_do_not_matter() -> None:
    system = system_of(objective="contrastive").eval()
    histories, targets = [[1, 3], [8, 14], [3]], [4, 1, 4]
    plan = plan_of(system, [1, 3, 4, 8, 14])
    few = case.loss(system, plan, case.batch(histories, targets, item_plan=plan))
    torch.testing.assert_close(few, case.loss(system, plan_of(system), case.batch(histories, targets)))


def test_another_number_of_targets_scales_the_loss() -> None:
    system = system_of(objective="contrastive").eval()
    batch = case.batch(*case.histories())
    one, half = (
        case.loss(system, plan_of(system), replace(batch, num_global_targets=n * batch.num_global_targets))
        for n in (1, 2)
    )
    torch.testing.assert_close(half * 2, one)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (["text", "sound"], "has no feature 'sound'"),
        ([], "names no feature"),
        (["text", "text"], "names 'text' twice"),
        (None, r"features=\['audio', 'image', 'text'\]: MSM4SR reads one feature or two; name at most two of audio"),
    ],
)
def test_features_that_it_cannot_read_are_refused(features: list[str] | None, message: str) -> None:
    config = ModelConfig(name="msm4sr", msm4sr={"features": features})
    info = CatalogueInfo(num_items=9, feature_dims={"text": 3, "image": 2, "audio": 4})
    with pytest.raises(InputError, match=message):
        build_model(config, info)


def test_pre_training_has_no_item_table_and_fine_tuning_no_projections() -> None:
    for objective in OBJECTIVES:
        model = system_of(objective=objective, project_states=True).recommender
        assert isinstance(model, MSM4SR)
        assert model.needs.id_rows == (objective == "next_item")
        assert (model.projections is None) == (objective == "next_item")


def test_fine_tuning_has_every_weight_of_pre_training_and_an_item_table() -> None:
    pre_trained, tuned = (system_of(objective=objective).state_dict() for objective in ("contrastive", "next_item"))
    assert set(tuned) - set(pre_trained) == {"table.weight"}
    assert all(tuned[name].shape == weight.shape for name, weight in pre_trained.items())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_single_feature_has_one_stream_and_one_loss(objective: str) -> None:
    """Nothing is exchanged, whatever `mixup`, and every weight gets a gradient."""
    system = system_of(objective=objective, features=["text"], mixup=1.0, item_dropout=0.0).train()
    assert system.recommender.needs.features == ("text",)
    assert torch.equal(loss_of(system, seed=1), loss_of(system, seed=2))
    assert system.recommender.loss_labels == (("text",) if objective == "contrastive" else ("score",))
    loss_of(system).backward()
    assert all(p.grad is not None and p.grad.any() for p in system.parameters())
    dropping = system_of(objective=objective, features=["text"]).train()
    assert torch.equal(loss_of(dropping, seed=1), loss_of(dropping, seed=2)) == (objective == "next_item")


def test_the_loss_of_a_feature_does_not_depend_on_a_second_one_without_exchanges() -> None:
    """The same tower and adaptor give the same `text` loss, with and without an image."""
    both = system_of(objective="contrastive").eval()
    alone = system_of(objective="contrastive", features=["text"]).eval()
    state = both.state_dict()
    alone.load_state_dict({name: state[name] for name in alone.state_dict()})
    for system in (both, alone):
        loss_of(system)
    assert alone.recommender.channel_losses is not None
    assert both.recommender.channel_losses is not None
    torch.testing.assert_close(alone.recommender.channel_losses, both.recommender.channel_losses[:1])
