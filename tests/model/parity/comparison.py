"""Compares a system with a fixture: states, scores, loss, and the gradient of every parameter of the authors' code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from contracts.batch import Batch
from contracts.item_plan import ItemPlan
from model.recommender import Recommender
from model.system import RecommenderSystem
from tests.model.parity.fixture import Array, Fixture
from tests.model.parity.names import Weights
from tests.model.small_case import Rows

RTOL, ATOL = 1e-9, 1e-11


class _Outputs(nn.Module):
    """Returns what is compared: user vectors, the loss of a batch, and scores if there are any to compare with."""

    def __init__(self, system: RecommenderSystem, temperature: float, scale: float | None) -> None:
        """Make the module; `scale` multiplies the scores, None: there are no scores to compare with."""
        super().__init__()
        self.system, self.temperature, self.scale = system, temperature, scale

    def forward(self, plan: ItemPlan, batch: Batch, trained: Batch) -> tuple[list[Tensor], Tensor, Tensor | None]:
        items = self.system.item_rows(plan)
        states = [states * self.temperature for states in self.system.recommender.scored_users(items, batch)]
        step = SimpleNamespace(feature=plan.union_ids, plan=plan, batch=trained)
        loss = self.system(step)
        if self.scale is None:
            return states, loss, None
        users, vectors = self.system.encode_users(items, batch), self.system.encode_items(items)
        return states, loss, self.system.recommender.pair_scores(users, vectors) * self.scale


def check_parity(
    fixture: Fixture,
    recommender: Recommender,
    to_ours: Callable[[Weights], Weights],
    *,
    states: str | Sequence[str] = "user_states",
    scores: str | None = "scores_without_pad",
    loss: str = "loss_without_pad",
    gradients: str | None = "grad_without_pad",
    frozen: Sequence[str] = (),
    without_effect: Sequence[str] = (),
    training: bool = False,
    temperature: float = 1.0,
    scores_are_divided: bool = False,
    features: Callable[[Weights], Weights] | None = None,
    parts: Sequence[str] = (),
    ranked: Batch | None = None,
    trained: Batch | None = None,
) -> None:
    """Fail with a message that names what differs if a system does not compute what the authors' code computes.

    Args:
        fixture: the numbers.
        recommender: our model with the fixture's sizes. Its weights are replaced.
        to_ours: returns every parameter of our system under our names, from the authors' parameters.
        states: the outputs with the user vectors, compared with those of our first channels. Ours may have further
            coordinates, which must be 1: they multiply an item's bias.
        scores: the output with scores of all items; None: there is none.
        loss: the output with the loss, and the key in `grad_norms`.
        gradients: the prefix of the outputs with whole gradients; None: there are no gradients, nor norms of them.
        frozen: the authors' parameters that they do not train.
        without_effect: the authors' parameters that we left out because results do not depend on them.
        training: whether the system is in training mode, for noise that the fixture has recorded.
        temperature: what the scores of a cosine are divided by; the fixture's states and scores are not.
        scores_are_divided: whether the fixture's scores are divided by the temperature too.
        features: returns item features without padding, by name, from the authors' parameters, whose gradients then
            include the way through the features; None: the fixture's.
        parts: the outputs with the parts of the loss, compared with our first parts.
        ranked: the batch of states and scores; None: the fixture's rows.
        trained: the batch of the loss; None: the fixture's rows.
    """
    assert set(frozen) | set(without_effect) <= set(fixture.weights), "these names are not in the fixture"
    table = Rows(np.zeros((fixture.num_items, fixture.dim))) if recommender.needs.id_rows else None
    scale = 1.0 if scores_are_divided else temperature
    system = RecommenderSystem(table, recommender.double().train(training))
    outputs = _Outputs(system, temperature, scale if scores is not None else None)
    official = {name: x.clone().requires_grad_(name not in frozen) for name, x in fixture.weights.items()}
    ours = {f"system.{name}": x for name, x in to_ours(official).items()}
    _check_names(ours, dict(outputs.named_parameters()))
    plan, batches = fixture.plan(recommender.needs), (ranked or fixture.batch(), trained or fixture.batch())
    if features is not None:
        plan.features = features(official)
    found = functional_call(outputs, {**dict(outputs.named_buffers()), **ours}, (plan, *batches), strict=True)
    for name, of_channel in zip([states] if isinstance(states, str) else states, found[0], strict=False):
        width = fixture.outputs[name].shape[1]
        assert (of_channel[:, width:] == 1).all(), f"{fixture.name}: further coordinates of {name}"
        _close(f"{fixture.name}: {name}", of_channel[:, :width], fixture.outputs[name])
    if scores is not None:
        _close(f"{fixture.name}: {scores}", found[2], fixture.outputs[scores])
    if parts:
        assert recommender.channel_losses is not None
        for name, part in zip(parts, recommender.channel_losses / batches[1].num_global_targets, strict=False):
            _close(f"{fixture.name}: {name}", part, fixture.outputs[name])
    _close(f"{fixture.name}: {loss}", found[1], fixture.outputs[loss])
    if gradients is None:
        return

    moved = {name: x for name, x in official.items() if x.requires_grad}
    found_gradients = torch.autograd.grad(found[1], list(moved.values()), allow_unused=True)
    by_name = dict(zip(moved, found_gradients, strict=True))
    norms = fixture.meta["grad_norms"][loss]
    assert set(norms) == set(moved), f"{fixture.name}: gradients are stored of {sorted(norms)}"
    for name, norm in norms.items():
        gradient = by_name[name]
        if gradient is None:
            assert name in without_effect, f"{fixture.name}: our loss does not depend on {name}"
            gradient = torch.zeros_like(official[name])
        _close(f"{fixture.name}: norm of the gradient of {name}", gradient.norm(), np.asarray(norm))
        if f"{gradients}/{name}" in fixture.outputs:
            _close(f"{fixture.name}: gradient of {name}", gradient, fixture.outputs[f"{gradients}/{name}"])


def _check_names(ours: Weights, parameters: dict[str, nn.Parameter]) -> None:
    assert set(ours) == set(parameters), (
        f"not set: {sorted(set(parameters) - set(ours))}; unknown: {sorted(set(ours) - set(parameters))}"
    )
    for name, x in ours.items():
        assert x.shape == parameters[name].shape, (name, tuple(x.shape), tuple(parameters[name].shape))


def _close(what: str, found: Tensor, expected: Array) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=RTOL, atol=ATOL, err_msg=what)
