"""Mini-batch k-means against a plain loop, and on points whose clusters are known."""

from __future__ import annotations

import pytest
import torch

from model.blocks import clustering
from model.blocks.clustering import minibatch_kmeans, nearest_centers
from model.blocks.density_peaks import density_peaks


def test_clusters_that_are_far_apart_are_found() -> None:
    torch.manual_seed(0)
    centers = 100 * torch.randn(6, 5)
    truth = torch.arange(600) % 6
    points = centers[truth] + 0.1 * torch.randn(600, 5)
    # Random first centres may share a cluster, so more centres are asked for than there are clusters.
    found, labels = minibatch_kmeans(points, 40, 5)
    assert (points - found[labels]).norm(dim=1).max() < 1
    for label in labels.unique():
        assert len(truth[labels == label].unique()) == 1


def test_a_step_moves_centres_as_a_plain_loop_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of whole numbers: sums are exact in any order."""
    points = torch.randint(-8, 9, (30, 3), generator=torch.Generator().manual_seed(3)).double()
    orders = [torch.randperm(30, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    drawn = iter(orders)
    monkeypatch.setattr(torch, "randperm", lambda count, device: next(drawn))  # noqa: ARG005
    found, labels = minibatch_kmeans(points, 4, 2)
    centers, totals = points[orders[0][:4]].clone(), [0] * 4
    for order in orders[1:]:
        members: list[list[torch.Tensor]] = [[] for _ in range(4)]
        for point in points[order]:
            members[int(((centers - point) ** 2).sum(dim=1).argmin())].append(point)
        for number, own in enumerate(members):
            totals[number] += len(own)
            if own:
                centers[number] += (torch.stack(own) - centers[number]).sum(dim=0) / totals[number]
    torch.testing.assert_close(found, centers, rtol=1e-12, atol=1e-12)
    assert torch.equal(labels, ((points[:, None] - found) ** 2).sum(dim=2).argmin(dim=1))


def test_copies_of_a_vector_are_one_peak_of_density() -> None:
    torch.manual_seed(0)
    different, copied = torch.randn(60, 8), torch.randn(1, 8)
    _, clusters = density_peaks(torch.cat([different, copied.expand(40, -1)]), 50, 20)
    assert len(clusters[60:].unique()) == 1
    assert len(clusters[:60].unique()) >= 49


def test_blocks_give_the_same_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    points, centers = torch.randn(101, 4), torch.randn(7, 4)
    whole = nearest_centers(points, centers)
    monkeypatch.setattr(clustering, "_MAX_DISTANCES", 20)
    assert torch.equal(nearest_centers(points, centers), whole)
    assert len(nearest_centers(points[:0], centers)) == 0
