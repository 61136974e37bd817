"""MDSRec against its transcription: values, gradients, padding, unions, noise."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.schema import ModelConfig
from contracts.errors import InputError
from model.blocks.fusion import gated_centers
from model.mdsrec import MDSRec
from model.protocol import CatalogueInfo
from model.system import RecommenderSystem
from tests.model import small_case as case
from tests.model.mdsrec_numpy import MDSRecInNumPy

SWITCHES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "mu_id=0": {"mu_id": 0},
    "sum": {"adjacency": "sum", "rho": {"text": 0.7}, "default_rho": 0.3},
    "features": {"item_view": "features"},
    "separate modalities": {"share_modalities": False},
    "separate centres": {"share_centers": False},
    "separate both": {"share_modalities": False, "share_centers": False, "tau": 0.3},
    "no centres": {"center_attention": False},
    "no centres, features": {"center_attention": False, "item_view": "features", "share_modalities": False},
    "no residual": {"center_residual": False},
    "no residual, separate": {"center_residual": False, "share_centers": False, "share_modalities": False},
    "literal": {"center_residual": False, "center_feed_forward": "literal"},
    "literal, separate": {
        "center_residual": False,
        "center_feed_forward": "literal",
        "share_centers": False,
        "share_modalities": False,
    },
    "literal feed-forward with residual": {"center_feed_forward": "literal"},
    "noise at evaluation": {"gumbel_at_evaluation": True, "tau": 2.0},
    "one modality": {"modalities": ("text",)},
    "no modality": {"modalities": ()},
    "no modality, separate": {"modalities": (), "share_modalities": False, "share_centers": False},
}
SHAPES: dict[str, dict[str, Any]] = {
    "relu": {"activation": "relu", "ffn_dim": 5},
    "one layer, one head": {"num_layers": 1, "num_heads": 1},
    "three layers": {"num_layers": 3},
}


def numpy_weights(system: RecommenderSystem) -> dict[str, Any]:
    return {name: p.numpy().copy() for name, p in system.recommender.state_dict().items()}


def drawn_noise(model: MDSRec, num_users: int, seed: int) -> Any:
    """What the gates add, drawn as one chunk of one group draws it: [M, B, k]."""
    noise = torch.zeros(len(model.modalities), num_users, case.NUM_CENTERS, dtype=torch.float64)
    if model.options.gumbel_at_evaluation:
        torch.manual_seed(seed)
        for m in range(len(noise)):
            delta = torch.rand(num_users, case.NUM_CENTERS, dtype=torch.float64)
            noise[m] = torch.log(delta) - torch.log(1 - delta)
    return noise.numpy()


def check_against_numpy(num_modalities: int, config: ModelConfig) -> None:
    """Scores, loss, and the loss's derivative along a random direction of all parameters at once."""
    cat = case.catalogue(num_modalities)
    system = case.mdsrec_system(cat, config).eval()
    model = system.recommender
    assert isinstance(model, MDSRec)
    histories, targets = case.histories()
    plan, batch = case.plan(cat, model.needs), case.batch(histories, targets, pad=3)
    table, weights = system.table.weight.detach().numpy().copy(), numpy_weights(system)
    noise = drawn_noise(model, len(histories), seed=5)
    torch.manual_seed(5)
    items = system.item_rows(plan)
    users = system.encode_users(items, batch)
    expected = case.numpy_mdsrec(cat, config, weights).scores(table, histories, noise)
    np.testing.assert_allclose((users @ system.encode_items(items).T).detach().numpy(), expected, rtol=1e-9, atol=1e-12)
    torch.manual_seed(5)
    loss = case.loss(system, plan, batch)
    oracle = case.numpy_mdsrec(cat, config, weights)
    np.testing.assert_allclose(loss.item(), oracle.loss(table, histories, targets, noise), rtol=1e-9)
    loss.backward()

    rng = np.random.default_rng(2)
    directions = {name: rng.normal(size=p.shape) for name, p in system.named_parameters()}

    def loss_at(step: float) -> float:
        moved = {name: x + step * directions[f"recommender.{name}"] for name, x in weights.items()}
        shifted = case.numpy_mdsrec(cat, config, moved)
        return shifted.loss(table + step * directions["table.weight"], histories, targets, noise)

    np.testing.assert_allclose(case.derivative(system, directions), case.slope(loss_at), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("num_modalities", [2, 3])
@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_every_switch_agrees_with_numpy(num_modalities: int, switches: dict[str, Any]) -> None:
    check_against_numpy(num_modalities, case.config(mdsrec=switches))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("switches", [{}, SWITCHES["literal"]], ids=["defaults", "literal"])
def test_every_shape_agrees_with_numpy(shape: dict[str, Any], switches: dict[str, Any]) -> None:
    check_against_numpy(2, case.config(mdsrec=switches, **shape))


@pytest.mark.long
@pytest.mark.parametrize(
    "switches", [{}, SWITCHES["no residual, separate"], SWITCHES["literal, separate"], SWITCHES["features"]]
)
def test_gradient_of_each_parameter_agrees_with_finite_differences(switches: dict[str, Any]) -> None:
    config, cat = case.config(mdsrec=switches), case.catalogue(2)
    system = case.mdsrec_system(cat, config)
    system.recommender.options = system.recommender.options.model_copy(update={"gumbel_noise": False})
    histories, targets = case.histories(4)
    case.loss(system, case.plan(cat, system.recommender.needs), case.batch(histories, targets)).backward()
    weights = {f"recommender.{n}": x for n, x in numpy_weights(system).items()}
    weights["table.weight"] = system.table.weight.detach().numpy().copy()
    noise = np.zeros((2, len(histories), case.NUM_CENTERS))
    rng = np.random.default_rng(3)

    def loss_at(name: str, direction: Any, step: float) -> float:
        moved = weights | {name: weights[name] + step * direction}
        table = moved.pop("table.weight")
        oracle = case.numpy_mdsrec(cat, config, {n.removeprefix("recommender."): x for n, x in moved.items()})
        return oracle.loss(table, histories, targets, noise)

    for name, parameter in system.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient, which would stall DDP"
        direction = rng.normal(size=parameter.shape)
        expected = case.slope(partial(loss_at, name, direction))
        actual = case.derivative(system, {name: direction})
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7, err_msg=name)


def scores(system: RecommenderSystem, plan: Any, batch: Any) -> Tensor:
    items = system.item_rows(plan)
    return system.encode_users(items, batch) @ system.encode_items(items).T


def test_padding_content_and_padded_length_change_nothing() -> None:
    cat = case.catalogue(2)
    system = case.mdsrec_system(cat, case.config()).eval()
    plan = case.plan(cat, system.recommender.needs)
    histories, targets = case.histories()
    reference = scores(system, plan, case.batch(histories, targets, pad=0))
    assert torch.equal(reference, scores(system, plan, case.batch(histories, targets, pad=7)))
    alone = [scores(system, plan, case.batch([h], [t])) for h, t in zip(histories, targets, strict=True)]
    torch.testing.assert_close(torch.cat(alone), reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("switches", [{}, {"center_attention": False}, {"mu_id": 0}], ids=str)
def test_a_sub_union_gives_the_scores_and_gradients_of_the_catalogue(switches: dict[str, Any]) -> None:
    cat = case.catalogue(2)
    system = case.mdsrec_system(cat, case.config(mdsrec=switches)).eval()
    needs = system.recommender.needs
    outside = case.NOWHERE if needs.centers else (1, 2, 8, 11, 12, 14)
    roles = [i for i in range(case.NUM_ITEMS) if i not in outside]
    histories, targets = case.histories()
    histories = [[i for i in history if i in roles] or [roles[0]] for history in histories]
    targets = [t if t in roles else roles[0] for t in targets]
    whole, part = case.plan(cat, needs), case.plan(cat, needs, roles)
    assert part.num_roles == len(roles) < case.NUM_ITEMS
    results = []
    for plan, columns in ((whole, torch.tensor(roles)), (part, torch.arange(len(roles)))):
        y = scores(system, plan, case.batch(histories, targets, item_plan=plan))[:, columns]
        results.append((y, *torch.autograd.grad(y.logsumexp(1).sum(), list(system.parameters()))))
    for small, large in zip(*results, strict=True):
        torch.testing.assert_close(small, large, rtol=1e-10, atol=1e-12)


def test_an_empty_share_has_zero_loss_and_zero_gradients() -> None:
    cat = case.catalogue(2)
    for switches in SWITCHES.values():
        system = case.mdsrec_system(cat, case.config(mdsrec=switches, dropout=0.5))
        batch = case.batch([], [])
        batch.num_global_targets = 3
        loss = case.loss(system, case.plan(cat, system.recommender.needs), batch)
        loss.backward()
        assert loss.item() == 0
        for name, parameter in system.named_parameters():
            assert parameter.grad is not None, (switches, name)
            assert not parameter.grad.any(), (switches, name)


def test_noise_and_dropout_are_for_training_only() -> None:
    cat = case.catalogue(2)
    histories, targets = case.histories()
    batch = case.batch(histories, targets)
    noisy = case.mdsrec_system(cat, case.config())
    plan = case.plan(cat, noisy.recommender.needs)
    assert not torch.equal(scores(noisy, plan, batch), scores(noisy, plan, batch))
    noisy.eval()
    assert torch.equal(scores(noisy, plan, batch), scores(noisy, plan, batch))
    for change in (
        {"mdsrec": {"gumbel_noise": False}, "dropout": 0.5},
        {"mdsrec": {"center_dropout": 0.5, "gumbel_noise": False}},
    ):
        dropping = case.mdsrec_system(cat, case.config(**change))
        assert not torch.equal(scores(dropping, plan, batch), scores(dropping, plan, batch))
        torch.testing.assert_close(scores(dropping.eval(), plan, batch), scores(noisy, plan, batch), rtol=0, atol=0)
    quiet = case.mdsrec_system(cat, case.config(mdsrec={"gumbel_noise": False}))
    assert torch.equal(scores(quiet, plan, batch), scores(noisy, plan, batch))


def test_the_loss_of_two_ranks_adds_up() -> None:
    cat = case.catalogue(2)
    system = case.mdsrec_system(cat, case.config()).eval()
    plan = case.plan(cat, system.recommender.needs)
    histories, targets = case.histories()
    shares = [case.batch(histories[:5], targets[:5]), case.batch(histories[5:], targets[5:])]
    for share in shares:
        share.num_global_targets = len(targets)
    total = case.loss(system, plan, shares[0]) + case.loss(system, plan, shares[1])
    torch.testing.assert_close(total, case.loss(system, plan, case.batch(histories, targets)), rtol=1e-12, atol=0)


def test_float32_and_bfloat16_autocast_stay_close() -> None:
    cat = case.catalogue(2)
    histories, targets = case.histories()
    system = case.mdsrec_system(cat, case.config()).eval()
    plan, batch = case.plan(cat, system.recommender.needs), case.batch(histories, targets)
    exact = case.loss(system, plan, batch).item()
    system.float()
    loss = case.loss(system, plan, batch)
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(loss.item(), exact, rtol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = case.loss(system, plan, batch)
    rounded.backward()
    assert rounded.dtype == torch.float32
    np.testing.assert_allclose(rounded.item(), exact, rtol=0.1)


@pytest.mark.parametrize("autocast", [False, True])
def test_gate_noise_is_drawn_in_float32_also_under_autocast(autocast: bool) -> None:
    """Of two equal centres, one gets less than 1e-5 with probability P(l < log 1e-5), l a difference of two logistics.

    That is about 12e-5. With noise in bfloat16, of which 0.2% is exactly 0, it is twenty times as much.
    """
    centers = torch.tensor([[1.0], [0.0]]).expand(100_000, 2, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        gates = gated_centers(torch.zeros(100_000, 1), centers, 1.0, True)
    assert 2 <= int((gates < 1e-5).sum()) <= 35


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("feed_forward", ["transformer", "literal"])
def test_float32_on_cpu_has_the_same_centre_layer_as_float64(residual: bool, feed_forward: str) -> None:
    """With one thread and float32, CPU takes fused passes where it can; they must compute the same layer."""
    cat = case.catalogue(2)
    histories, targets = case.histories()
    switches = {"center_residual": residual, "center_feed_forward": feed_forward, "gumbel_noise": False}
    results = []
    for dtype in (torch.float64, torch.float32):
        system = case.mdsrec_system(cat, case.config(mdsrec=switches)).to(dtype)
        loss = case.loss(system, case.plan(cat, system.recommender.needs), case.batch(histories, targets))
        results.append((loss, *torch.autograd.grad(loss, list(system.parameters()))))
    for exact, ours in zip(*results, strict=True):
        assert ours.dtype == torch.float32
        assert (exact - ours).norm() <= 2e-5 * exact.norm() + 1e-6


def test_it_needs_only_what_its_switches_use() -> None:
    info = case.catalogue(2).info
    full = MDSRec(case.config(), info).needs
    assert full.cooccurrence
    assert full.views == full.centers == ("image", "text")
    assert full.features == ()
    bare = MDSRec(case.config(mdsrec={"mu_id": 0, "center_attention": False, "item_view": "features"}), info).needs
    assert not bare.cooccurrence
    assert bare.views == bare.centers == ()
    assert bare.features == ("image", "text")


@pytest.mark.parametrize(
    ("info", "options", "said"),
    [
        (CatalogueInfo(num_items=5), {}, "[] for the ID channel alone"),
        (
            CatalogueInfo(num_items=5, modalities=("text",), feature_dims={}, num_centers={"text": 3}),
            {"modalities": ("image",)},
            "'image' (only for text)",
        ),
        (
            CatalogueInfo(num_items=5, modalities=("text",), feature_dims={}, num_centers={}),
            {},
            "no interest centres for 'text'",
        ),
        (
            CatalogueInfo(num_items=5, modalities=("text",), feature_dims={}, num_centers={"text": 3}),
            {"item_view": "features"},
            "no raw features for 'text'",
        ),
    ],
)
def test_a_catalogue_without_the_modality_is_refused(info: CatalogueInfo, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        MDSRec(case.config(mdsrec=options), info)
    assert said in str(error.value)


def test_the_transcription_itself_has_every_term() -> None:
    """Zero rho leaves the ID channel; identical centres make Gamma irrelevant: a guard for the oracle."""
    cat, config = case.catalogue(2), case.config(mdsrec={"rho": {"image": 0.0, "text": 0.0}})
    system = case.mdsrec_system(cat, config)
    oracle: MDSRecInNumPy = case.numpy_mdsrec(cat, config, numpy_weights(system))
    table = np.random.default_rng(0).normal(size=(case.NUM_ITEMS, case.DIM))
    noise = np.zeros((2, 1, case.NUM_CENTERS))
    user = oracle.user(table, [1, 4], list(noise[:, 0]))
    np.testing.assert_allclose(oracle.scores(table, [[1, 4]], noise)[0], table @ user[0])
    assert not np.allclose(user[1], oracle.towers[1](oracle.item_views(table)[0][[1, 4]])[-1][-1])
