"""No score is above its bound, and the bounds are not far from the greatest scores."""

import faiss
import numpy as np
import pytest
import torch

from model.blocks.score_fusion import DynamicFusion
from serving.index.bounds import fused_bound, fused_error, inner_product_error, sum_error


@pytest.mark.parametrize("width", [1, 24, 300])
def test_programs_round_inner_products_by_less_than_the_bound(width):
    generator = np.random.default_rng(width)
    users = generator.standard_normal((64, width)).astype(np.float32)
    items = (1 + generator.standard_normal((4000, width))).astype(np.float32)
    real = users.astype(np.float64) @ items.T.astype(np.float64)
    norms = np.linalg.norm(users.astype(np.float64), axis=1)
    bound = inner_product_error(width, norms, np.linalg.norm(items.astype(np.float64), axis=1).max())[:, None]
    index = faiss.IndexFlatIP(width)
    index.add(items)
    found = np.empty((64, 4000))
    for rows in (slice(0, 4), slice(4, 64)):  # faiss computes few queries otherwise than many
        scores, ids = index.search(users[rows], 4000)
        np.put_along_axis(found[rows], ids, scores, 1)
    for scores in (found, (torch.from_numpy(users) @ torch.from_numpy(items).T).numpy()):
        error = np.abs(scores - real)
        assert (error <= bound).all()
        assert error.max() > 1e-4 * bound.min()  # so the bound is not out of proportion


def test_sums_round_by_less_than_the_bound():
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal(100_000).astype(np.float32) for _ in range(2))
    nearby = np.nextafter(a, np.float32(9))
    apart = np.abs((a + b).astype(np.float64) - (nearby + b).astype(np.float64))
    assert (apart <= np.abs(nearby - a) + sum_error(np.abs(a) + np.abs(b))).all()
    assert (apart > np.abs(nearby - a)).any()


@pytest.mark.parametrize("weight", [-4.0, -0.5, 0.0, 0.5, 4.0])
@pytest.mark.parametrize("with_ids", [True, False])
def test_no_fused_score_is_above_its_bound(weight, with_ids):
    generator = torch.Generator().manual_seed(1)
    fusion = DynamicFusion(temperature=0.07, with_ids=with_ids)
    fusion.weight.data.fill_(weight)
    bounds = 14 * torch.rand(4, 30, generator=generator)
    scores = bounds[:, :, None] - 20 * torch.rand(4, 30, 3000, generator=generator).square()
    present = torch.rand(4, 3000, generator=generator) < 0.6
    for channel in range(4):  # items at the bounds, each with one modality
        scores[:, :, channel] = bounds
        present[:, channel] = torch.arange(4) == channel
    present[0] |= with_ids
    scores = torch.where(present[:, None], scores, 0.0)
    fused = fusion(list(scores), list(present)).detach().double().numpy()
    bound = fused_bound(fusion, bounds.double().numpy(), np.full((4, 30), 14.0))
    assert (fused <= bound[:, None]).all()
    np.testing.assert_allclose(fused.max(axis=1), bound, rtol=1e-4)


@pytest.mark.parametrize("weight", [-4.0, 0.0, 0.5, 4.0])
@pytest.mark.parametrize("with_ids", [True, False])
def test_programs_fuse_scores_by_less_than_the_bound_apart(weight, with_ids):
    generator = torch.Generator().manual_seed(2)
    fusion = DynamicFusion(temperature=0.07, with_ids=with_ids)
    fusion.weight.data.fill_(weight)
    present = torch.rand(3, 9000, generator=generator) < 0.7
    scores = torch.where(present[:, None], 28 * torch.rand(3, 1, 9000, generator=generator) - 14, 0.0)
    for error in (0.0, 1e-4, 1e-2):
        moved = torch.where(
            present[:, None], scores + 2 * error * (torch.rand(scores.shape, generator=generator) - 0.5), 0.0
        )
        real = fusion(list(moved.double()), list(present)).detach()
        apart = (fusion(list(scores), list(present)).detach() - real).abs().numpy()
        bound = fused_error(fusion, np.full((3, 1), error), np.full((3, 1), 14.0))
        assert (apart <= bound / 2).all()  # half of it: only one of the two programs is off
        assert apart.max() > bound / 100


def test_an_unknown_fusion_has_no_bound():
    assert fused_error(lambda scores, present: scores[0], np.zeros((2, 3)), np.ones((2, 3))).tolist() == [np.inf] * 3  # noqa: ARG005
    assert fused_bound(lambda scores, present: scores[0], np.zeros((2, 3)), np.ones((2, 3))).tolist() == [np.inf] * 3  # noqa: ARG005
