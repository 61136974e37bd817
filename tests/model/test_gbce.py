"""gBCE over channels: equals the paper's formula, full and sampled, by chunks, and unbiased for any draws."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.schema import TrainingConfig
from data.sampling.negatives import CandidateSampler
from model.blocks import losses
from model.blocks.gbce import GBCE
from model.blocks.repeats import SeenItems
from model.protocol import Channel
from model.zoo import build_criterion
from tests.model.test_sampled_softmax import LargestTensor, value_and_gradients, vectors

CHANNELS = (Channel("id", 1.0), Channel("image", 0.3))
ONE_CHANNEL = (Channel("id", 1.0),)
NO_SEEN: list[list[int]] = [[] for _ in range(9)]


def plain_loss(
    gbce: tuple[int, int, float],
    users: Sequence[Tensor],
    items: Sequence[Tensor],
    targets: Sequence[int],
    candidates: Sequence[int],
    weights: Sequence[Sequence[float]],
    seen: Sequence[Sequence[int]] = NO_SEEN,
    gains: Sequence[Tensor | float] = (0.0, 0.0),
) -> Tensor:
    """The sum over rows, term by term, from the paper's alpha and beta; each row has its own weights."""
    num_items, k, t = gbce
    alpha = k / (num_items - 1)
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    total = torch.zeros((), dtype=torch.float64)
    for user, item, channel, gain in zip(users, items, CHANNELS, gains, strict=True):
        for row, target in enumerate(targets):
            scores = {j: user[row] @ item[j] + gain * (j in seen[row]) for j in {*candidates, target}}
            value = beta * torch.log(torch.sigmoid(scores[target]))
            for j, weight in zip(candidates, weights[row], strict=True):
                if j != target:
                    value = value + alpha * weight * torch.log(1 - torch.sigmoid(scores[j]))
            total = total - channel.weight * value / (k + 1)
    return total


def same(found: tuple[Tensor, tuple[Tensor, ...]], expected: tuple[Tensor, tuple[Tensor, ...]]) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=0)
    for one, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("t", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("max_logits", [2**24, 14])
def test_the_sampled_loss_equals_the_papers_formula(monkeypatch: pytest.MonkeyPatch, max_logits: int, t: float) -> None:
    monkeypatch.setattr(losses, "MAX_LOGITS", max_logits)
    users, items = vectors(9), vectors(12)
    targets = [0, 1, 2, 3, 11, 11, 5, 5, 7]
    candidates = [11, 2, 9, 0, 4]
    log_weights = torch.randn(5, dtype=torch.float64)
    same(
        value_and_gradients(
            GBCE(num_items=12, draws=4, calibration=t).sampled,
            users, items, CHANNELS, torch.tensor(targets), torch.tensor(candidates),
            log_weights, 1,
        ),
        value_and_gradients(
            lambda *both: plain_loss((12, 4, t), *both, targets, candidates, [log_weights.exp().tolist()] * 9),
            users, items,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("max_logits", [2**24, 25])
def test_without_sampling_it_is_binary_cross_entropy_over_all_items(
    monkeypatch: pytest.MonkeyPatch, max_logits: int
) -> None:
    monkeypatch.setattr(losses, "MAX_LOGITS", max_logits)
    users, items, targets = vectors(9), vectors(12), [0, 1, 2, 3, 11, 11, 5, 5, 7]

    def library(users: list[Tensor], items: list[Tensor]) -> Tensor:
        labels = torch.nn.functional.one_hot(torch.tensor(targets), 12).double()
        return sum(
            channel.weight * torch.nn.functional.binary_cross_entropy_with_logits(u @ i.T, labels, reduction="sum") / 12
            for u, i, channel in zip(users, items, CHANNELS, strict=True)
        ) / torch.tensor(20.0)  # fmt: skip

    full = value_and_gradients(
        GBCE(num_items=12, draws=None, calibration=0.75).full, users, items, CHANNELS, torch.tensor(targets), 20
    )
    same(full, value_and_gradients(library, users, items))
    everything = torch.randperm(12), torch.zeros(12)
    for draws in (11, 300):  # more draws than other items stand for all of them
        sampled = GBCE(num_items=12, draws=draws, calibration=0.75).sampled
        same(value_and_gradients(sampled, users, items, CHANNELS, torch.tensor(targets), *everything, 20), full)


@pytest.mark.parametrize("max_logits", [2**24, 14])
def test_targets_trained_together_weigh_one_and_seen_items_get_their_gain(
    monkeypatch: pytest.MonkeyPatch, max_logits: int
) -> None:
    monkeypatch.setattr(losses, "MAX_LOGITS", max_logits)
    users, items = vectors(5), vectors(12)
    targets = [3, 9, 3, 0, 9]  # spans of 3 and 2 targets; item 3 twice in one, item 9 in both
    same_sequence = torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, 2], [3, 4, 3], [3, 4, 4]])
    candidates, log_weights = [0, 3, 5, 9, 11, 2], torch.randn(6, dtype=torch.float64)
    weights = [
        [1.0 if j in own else float(log_weights[n].exp()) for n, j in enumerate(candidates)]
        for own in ([3, 9], [3, 9], [3, 9], [0, 9], [0, 9])
    ]
    seen = [[3, 7], [5], [11, 2], [0, 4], [9, 0]]  # own targets, candidates and items that are neither
    padded = [(row + row)[:2] for row in seen]
    counts = torch.tensor([[1.0, float(len(row) == 2)] for row in seen])
    gains = torch.tensor([-1.5, 0.8], dtype=torch.float64, requires_grad=True)
    both = SeenItems(torch.tensor(padded), counts, gains.unbind())
    leaves = [*users, *items, gains]
    found = GBCE(num_items=12, draws=4, calibration=0.6).sampled(
        users, items, CHANNELS, torch.tensor(targets), torch.tensor(candidates), log_weights, 1, same_sequence, both
    )
    expected = plain_loss((12, 4, 0.6), users, items, targets, candidates, weights, seen, gains)
    same((found, torch.autograd.grad(found, leaves)), (expected, torch.autograd.grad(expected, leaves)))
    everything = list(range(12))
    full = GBCE(num_items=12, draws=None, calibration=0.6).full(users, items, CHANNELS, torch.tensor(targets), 1, both)
    expected = plain_loss((12, 11, 0.6), users, items, targets, everything, [[1.0] * 12] * 5, seen, gains)
    same((full, torch.autograd.grad(full, leaves)), (expected, torch.autograd.grad(expected, leaves)))


@pytest.mark.parametrize("max_logits", [1, 50, 100, 519])
def test_chunks_leave_value_and_gradients(monkeypatch: pytest.MonkeyPatch, max_logits: int) -> None:
    users, items, targets = vectors(26), vectors(20), torch.randint(20, (26,))
    sample = torch.randperm(20)[:15], torch.randn(15)
    for loss, more in (
        (GBCE(num_items=20, draws=6, calibration=0.5).sampled, sample),
        (GBCE(num_items=20, draws=None, calibration=0.5).full, ()),
    ):
        monkeypatch.setattr(losses, "MAX_LOGITS", 2**24)
        whole = value_and_gradients(loss, users, items, CHANNELS, targets, *more, 7)
        monkeypatch.setattr(losses, "MAX_LOGITS", max_logits)
        same(value_and_gradients(loss, users, items, CHANNELS, targets, *more, 7), whole)


def test_no_tensor_is_larger_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    users, items, targets = vectors(100), vectors(80), torch.randint(80, (100,))
    sample = torch.randperm(80)[:60], torch.randn(60)
    monkeypatch.setattr(losses, "MAX_LOGITS", 1000)
    for loss, more in (
        (GBCE(num_items=80, draws=6, calibration=0.5).sampled, sample),
        (GBCE(num_items=80, draws=None, calibration=0.5).full, ()),
    ):
        with LargestTensor() as largest:
            value_and_gradients(loss, users, items, CHANNELS, targets, *more, 7)
        assert 500 < largest.numel <= 1000


@pytest.mark.parametrize("size", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_scores_have_finite_losses_and_exact_gradients(dtype: torch.dtype, size: float) -> None:
    """Scores of +-size: log sigmoid of them is log1p(exp(-size)) or size more, and never infinite."""
    user = torch.tensor([[size], [-size]], dtype=dtype, requires_grad=True)
    item = torch.tensor([[1.0], [-1.0], [1.0]], dtype=dtype, requires_grad=True)
    small, large = math.log1p(math.exp(-size)), size + math.log1p(math.exp(-size))
    loss, (user_grad, item_grad) = value_and_gradients(
        GBCE(num_items=3, draws=None, calibration=1.0).full, [user], [item], ONE_CHANNEL, torch.tensor([0, 0]), 1
    )
    # Row 0: target size, others -size and size. Row 1: target -size, others size and -size.
    assert loss.item() == pytest.approx((3 * small + 3 * large) / 3, rel=1e-6)
    on = 1 / (1 + math.exp(-size))
    off = math.exp(-size) * on
    assert user_grad[:, 0].tolist() == pytest.approx([(-off - off + on) / 3, (-on - on + off) / 3], rel=1e-6)
    assert item_grad.isfinite().all()


@pytest.mark.parametrize("num_items", [1, 9])
def test_no_targets_give_a_connected_zero(num_items: int) -> None:
    users, items, nothing = vectors(0), vectors(num_items), torch.zeros(0, dtype=torch.int64)
    gbce = GBCE(num_items=num_items, draws=5, calibration=0.75)
    for loss in (
        GBCE(num_items=num_items, draws=None, calibration=0.75).full(users, items, CHANNELS, nothing, 0),
        gbce.sampled(users, items, CHANNELS, nothing, nothing, torch.zeros(0), 0),
        gbce.sampled(users, items, CHANNELS, nothing, torch.tensor([0]), torch.zeros(1), 0),
    ):
        grads = torch.autograd.grad(loss, [*users, *items])
        assert loss.item() == 0
        assert not any(grad.any() for grad in grads)  # NaN counts as any


@pytest.mark.parametrize("candidates", [[], [4]])
def test_without_negatives_the_positives_part_remains(candidates: list[int]) -> None:
    users, items = vectors(2), vectors(9)
    weights = torch.full((len(candidates),), 2.0)
    found = value_and_gradients(
        GBCE(num_items=9, draws=3, calibration=0.75).sampled,
        users, items, CHANNELS, torch.tensor([4, 4]), torch.tensor(candidates).long(),
        weights, 1,
    )  # fmt: skip
    same(found, value_and_gradients(lambda *both: plain_loss((9, 3, 0.75), *both, [4, 4], [], [[], []]), users, items))


def test_a_catalogue_of_one_item_has_no_negatives() -> None:
    gbce = GBCE(num_items=1, draws=5, calibration=0.75)
    assert (gbce.num_negatives, gbce.alpha, gbce.beta) == (0, 1.0, 1.0)
    loss = gbce.full([torch.zeros(2, 3)], [torch.zeros(1, 3)], ONE_CHANNEL, torch.tensor([0, 0]), 2)
    assert loss.item() == pytest.approx(math.log(2))


def test_logits_are_float32_under_autocast_and_for_half_vectors() -> None:
    user, item = torch.randn(5, 64, requires_grad=True), torch.randn(9, 64, requires_grad=True)
    operands = (ONE_CHANNEL, torch.arange(5), torch.arange(3, 9), torch.randn(6), 5)
    loss = GBCE(num_items=9, draws=4, calibration=0.75).sampled
    exact, exact_grads = value_and_gradients(loss, [user], [item], *operands)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under, grads = value_and_gradients(loss, [user], [item], *operands)
    assert torch.equal(under, exact)
    assert all(torch.equal(a, b) for a, b in zip(grads, exact_grads, strict=True))
    half = loss([user.bfloat16()], [item.bfloat16()], *operands)
    assert half.dtype == torch.float32


def test_the_parts_are_each_channels_own_loss() -> None:
    users, items, targets, parts = vectors(5), vectors(4), torch.tensor([0, 3, 3, 1, 2]), list[Tensor]()
    loss = GBCE(num_items=4, draws=None, calibration=0.75).full(users, items, CHANNELS, targets, 10, parts=parts)
    assert not any(part.requires_grad for part in parts)
    assert loss.item() == pytest.approx((parts[0] + 0.3 * parts[1]).item() / 10, rel=1e-12)


def test_a_config_chooses_it() -> None:
    training = TrainingConfig(loss="gbce", gbce_calibration=0.5, negatives={"draws": 7})
    assert build_criterion(training, 50) == GBCE(num_items=50, draws=7, calibration=0.5)
    assert build_criterion(TrainingConfig(loss="gbce"), 50) == GBCE(num_items=50, draws=None, calibration=0.75)
    assert not isinstance(build_criterion(TrainingConfig(), 50), GBCE)
    assert build_criterion(TrainingConfig(loss="gbce", gbce_prior_offset=True), 50).prior_offset  # type: ignore[attr-defined]


@pytest.mark.parametrize("draws", [4, None])
def test_the_prior_offset_makes_scores_of_zero_the_best_constant(draws: int | None) -> None:
    """The loss is that of scores which are larger by the offset, and no constant score has a lower one than 0."""
    gbce, plain = (
        GBCE(num_items=12, draws=draws, calibration=0.6, prior_offset=True),
        GBCE(num_items=12, draws=draws, calibration=0.6),
    )
    beta, k = (1 - 0.6 * 7 / 11, 4) if draws else (1.0, 11)
    assert gbce.offset == pytest.approx(math.log(beta / k), rel=1e-12)
    assert plain.offset == GBCE(num_items=1, draws=5, calibration=0.6, prior_offset=True).offset == 0
    targets, everything = torch.tensor([0, 7, 7]), (torch.arange(12), torch.zeros(12))

    def loss(gbce: GBCE, score: float, users: list[Tensor], items: list[Tensor]) -> Tensor:
        """A last column of ones and of scores adds a constant to all scores."""
        users = [torch.cat([users[0], torch.ones(3, 1, dtype=torch.float64)], dim=1)]
        items = [torch.cat([items[0], torch.full((12, 1), score, dtype=torch.float64)], dim=1)]
        if draws is None:
            return gbce.full(users, items, ONE_CHANNEL, targets, 1)
        return gbce.sampled(users, items, ONE_CHANNEL, targets, *everything, 1)

    users, items = vectors(3)[:1], vectors(12)[:1]
    for score in (0.0, 0.3):
        same(
            value_and_gradients(lambda *both, score=score: loss(gbce, score, *both), users, items),
            value_and_gradients(lambda *both, score=score: loss(plain, score + gbce.offset, *both), users, items),
        )
    zeros = [torch.zeros(3, 1, dtype=torch.float64)], [torch.zeros(12, 1, dtype=torch.float64)]
    at = {score: loss(gbce, score, *zeros).item() for score in (-0.01, 0.0, 0.01)}
    assert at[0.0] < min(at[-0.01], at[0.01])


NUM_ITEMS, NUM_SPANS, BATCH, REPEATS = 40, 60, 6, 1500


@pytest.mark.parametrize(
    ("in_batch", "popularity_share", "hard_share"), [(False, 0.0, 0.0), (True, 0.0, 0.0), (True, 0.5, 0.4)]
)
def test_value_and_gradient_are_unbiased_for_any_candidates(
    in_batch: bool, popularity_share: float, hard_share: float
) -> None:
    """The mean over steps that have the same row, other targets and other draws, within 4.5 standard errors."""
    rng = np.random.default_rng(11)
    of_spans = rng.integers(0, NUM_ITEMS, NUM_SPANS)  # the target of each span; span 0 is the row's
    sampler = CandidateSampler(
        counts=np.bincount(of_spans, minlength=NUM_ITEMS), num_draws=8, popularity_share=popularity_share,
        popularity_power=0.75, in_batch=in_batch, seed=1, hard_share=hard_share,
        neighbors=[rng.integers(0, NUM_ITEMS, (NUM_ITEMS, 3))],
    )  # fmt: skip
    user = torch.from_numpy(rng.normal(size=(1, 4))).requires_grad_()
    item = torch.from_numpy(rng.normal(size=(NUM_ITEMS, 4))).requires_grad_()
    target = torch.tensor(of_spans[:1])

    def sampled(step: int) -> Tensor:
        batch = of_spans[np.append(0, 1 + rng.choice(NUM_SPANS - 1, BATCH - 1, replace=False))]
        ids, log_weights = sampler.sample(0, step, batch)
        loss = GBCE(num_items=NUM_ITEMS, draws=8, calibration=0.75).sampled(
            [user], [item], ONE_CHANNEL, target, torch.from_numpy(ids), torch.from_numpy(log_weights), 1
        )
        return torch.cat([loss.detach()[None], *(grad.flatten() for grad in torch.autograd.grad(loss, [user, item]))])

    exact = plain_loss(
        (NUM_ITEMS, 8, 0.75), [user, user[:, :0]], [item, item[:, :0]], target.tolist(), range(NUM_ITEMS),
        [[1.0] * NUM_ITEMS],
    )  # fmt: skip
    # The second channel of width 0 has scores of 0, whose part is a constant.
    alpha, beta = 8 / 39, 1 - 0.75 * (1 - 8 / 39)
    exact = exact - 0.3 * math.log(2) * (beta + alpha * (NUM_ITEMS - 1)) / 9
    expected = torch.cat([exact.detach()[None], *(g.flatten() for g in torch.autograd.grad(exact, [user, item]))])
    found = torch.stack([sampled(step) for step in range(REPEATS)])
    errors = found.std(dim=0) / REPEATS**0.5
    assert errors[0] < 0.02 * expected[0]
    assert ((found.mean(dim=0) - expected).abs() <= 4.5 * errors + 1e-12).all()
