"""A channel that scores by a cosine: losses and scores are those of a plain softmax over cosines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.batch import Batch
from contracts.item_plan import ItemNeeds
from model.blocks.unit_vectors import unit_vectors
from model.protocol import Channel, ItemRows
from model.recommender import Recommender
from model.system import RecommenderSystem
from tests.model import small_case as case

TEMPERATURE, ZERO_ITEM = 0.07, 4
CHANNELS = (Channel("id", 0.7, cosine_temperature=TEMPERATURE), Channel("image", 0.3))


class TwoChannels(Recommender):
    """The state after a sequence is its last item's ID row, in a channel with a cosine and in one without."""

    def __init__(self, learn_repeats: bool) -> None:
        super().__init__()
        self.needs = ItemNeeds(id_rows=True)
        self.channels = CHANNELS
        if learn_repeats:
            self.learn_repeats()

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        assert items.ids is not None
        return [items.ids, items.ids]

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        assert items.ids is not None
        last = torch.arange(0, len(batch.history), batch.groups[0].length) + batch.lengths - 1
        states = items.ids[batch.history[last]] * 3 + 1
        return [states, states]


def system(learn_repeats: bool = False) -> RecommenderSystem:
    table = np.random.default_rng(0).normal(size=(case.NUM_ITEMS, case.DIM))
    table[ZERO_ITEM] = 0
    built = RecommenderSystem(case.Rows(table), TwoChannels(learn_repeats))
    if learn_repeats:
        with torch.no_grad():
            built.recommender.repeats.weight.copy_(torch.tensor([0.5, -0.25]))
    return built.double()


def numpy_logits(rows: np.ndarray, last: list[int]) -> list[np.ndarray]:
    """Per channel the logits [B, N] of users whose inputs end with the items `last`."""
    users = 3 * rows[last] + 1
    lengths = np.linalg.norm(rows, axis=1)
    cosines = users @ rows.T / np.linalg.norm(users, axis=1)[:, None] / np.where(lengths > 0, lengths, 1)
    return [cosines / TEMPERATURE, users @ rows.T]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("learn_repeats", [False, True])
def test_the_loss_is_that_of_a_softmax_over_cosines(learn_repeats: bool) -> None:
    sequences, targets = case.histories()
    built = system(learn_repeats)
    loss = case.loss(built, case.plan(case.catalogue(1), built.recommender.needs), case.batch(sequences, targets))
    rows = built.table.weight.detach().numpy()
    expected = 0.0
    gains = [0.5, -0.25] if learn_repeats else [0.0, 0.0]
    for channel, logits, gain in zip(CHANNELS, numpy_logits(rows, [s[-1] for s in sequences]), gains, strict=True):
        for row, sequence in enumerate(sequences):
            logits[row, list(set(sequence))] += gain
        expected -= channel.weight * log_softmax(logits)[np.arange(len(targets)), targets].mean()
    assert loss.item() == pytest.approx(expected, rel=1e-12)


class Summed(TwoChannels):
    """The same model, trained by one cross entropy of the whole score."""

    sums_scores = True


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("learn_repeats", [False, True])
def test_a_summed_score_has_one_cross_entropy_and_one_gain(learn_repeats: bool, sampled: bool) -> None:
    sequences, targets = case.histories()
    built = RecommenderSystem(system().table, Summed(learn_repeats)).double()
    if learn_repeats:
        built.recommender.repeats.weight.data.fill_(0.5)
    batch = case.batch(sequences, targets)
    if sampled:
        everything = {"candidates": torch.randperm(case.NUM_ITEMS), "log_weights": torch.zeros(case.NUM_ITEMS)}
        batch = replace(batch, **everything)
    loss = case.loss(built, case.plan(case.catalogue(1), built.recommender.needs), batch)
    by_channel = numpy_logits(built.table.weight.detach().numpy(), [s[-1] for s in sequences])
    scores = sum(channel.weight * logits for channel, logits in zip(CHANNELS, by_channel, strict=True))
    for row, sequence in enumerate(sequences):
        scores[row, list(set(sequence))] += 0.5 if learn_repeats else 0.0
    expected = -log_softmax(scores)[np.arange(len(targets)), targets]
    assert loss.item() == pytest.approx(expected.mean(), rel=1e-12)
    assert built.recommender.channel_losses.tolist() == pytest.approx([expected.sum()], rel=1e-12)
    assert built.recommender.loss_labels == ("score",)
    gains = built.recommender.repeat_gains()
    assert gains.shape == (2,)
    assert float(gains.sum()) == pytest.approx(0.5 if learn_repeats else 0.0)


def test_with_every_item_a_sampled_softmax_gives_the_same() -> None:
    sequences, targets = case.histories()
    built = system()
    plan, batch = case.plan(case.catalogue(1), built.recommender.needs), case.batch(sequences, targets)
    everything = {"candidates": torch.randperm(case.NUM_ITEMS), "log_weights": torch.zeros(case.NUM_ITEMS)}
    full, sampled = (case.loss(built, plan, one) for one in (batch, replace(batch, **everything)))
    torch.testing.assert_close(sampled, full, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, built.table.weight)[0] for loss in (full, sampled)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_a_score_is_the_weighted_sum_of_cosine_and_inner_product() -> None:
    sequences, targets = case.histories()
    built = system()
    items = built.item_rows(case.plan(case.catalogue(1), built.recommender.needs))
    with torch.no_grad():
        scores = built.encode_users(items, case.batch(sequences, targets)) @ built.encode_items(items).T
    by_channel = numpy_logits(built.table.weight.detach().numpy(), [s[-1] for s in sequences])
    expected = sum(channel.weight * logits for channel, logits in zip(CHANNELS, by_channel, strict=True))
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_central_differences() -> None:
    vectors = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit_vectors, (vectors,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_zero_vector_stays_zero_without_a_gradient(dtype: torch.dtype) -> None:
    vectors = torch.tensor([[0.0, 0.0], [1e-14, 0.0], [3.0, 4.0]], dtype=dtype, requires_grad=True)
    units = unit_vectors(vectors)
    torch.testing.assert_close(units, torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.6, 0.8]], dtype=dtype))
    (gradient,) = torch.autograd.grad(units.sum(), vectors)
    assert not gradient[:2].any()
    assert gradient[2].any()


def test_half_precision_vectors_are_scaled_in_float32() -> None:
    vectors = torch.randn(6, 64).bfloat16()
    units = unit_vectors(vectors)
    assert units.dtype == torch.float32
    torch.testing.assert_close(units.norm(dim=1), torch.ones(6))
