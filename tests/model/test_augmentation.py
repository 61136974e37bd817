"""Changes of inputs for contrastive training, against loops over rows."""

from __future__ import annotations

import pytest
import torch

from model.blocks.augmentation import random_positions, without_items
from model.blocks.sequence_groups import Sequences

LENGTH = 6


def group_of(lengths: list[int], num_queries: int = 1) -> Sequences:
    return Sequences(
        length=LENGTH,
        lengths=torch.tensor(lengths),
        num_states=torch.full((len(lengths),), num_queries),
        num_queries=num_queries,
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_dropped_items_are_gone_and_the_others_stay_in_order(share: float) -> None:
    torch.manual_seed(0)
    lengths = [1, 2, 3, 4, 5, 6] * 20
    group = group_of(lengths)
    streams = [torch.randn(len(lengths), LENGTH, 2) for _ in range(2)]
    dropped = random_positions(group, share)
    shorter, found = without_items(group, streams, dropped)
    assert (shorter.length, shorter.num_queries, shorter.num_states.tolist()) == (LENGTH, 1, group.num_states.tolist())
    for row, length in enumerate(lengths):
        kept = [place for place in range(length) if place == 0 or not dropped[row, place]]
        assert int(shorter.lengths[row]) == len(kept)
        for before, after in zip(streams, found, strict=True):
            assert torch.equal(after[row, : len(kept)], before[row, kept])
    assert (shorter.lengths == group.lengths).all() == (share == 0)
    assert (shorter.lengths == 1).all() == (share == 1)


def test_an_empty_group_stays_empty() -> None:
    group = Sequences(length=1, lengths=torch.zeros(0).long(), num_states=torch.zeros(0).long(), num_queries=1)
    shorter, found = without_items(group, [torch.zeros(0, 1, 2)], random_positions(group, 0.5))
    assert shorter.count == 0
    assert found[0].shape == (0, 1, 2)


def test_windows_are_refused() -> None:
    with pytest.raises(AssertionError, match="windows would lose targets"):
        without_items(group_of([6], num_queries=3), [], torch.ones(1, LENGTH, dtype=torch.bool))


def test_the_share_of_positions_is_kept_and_comes_from_the_steps_random_numbers() -> None:
    group = group_of([LENGTH] * 5000)
    torch.manual_seed(3)
    one = random_positions(group, 0.2)
    assert float(one.float().mean()) == pytest.approx(0.2, abs=0.01)  # six standard errors
    torch.manual_seed(3)
    assert torch.equal(one, random_positions(group, torch.tensor(0.2)))
    assert not torch.equal(one, random_positions(group, 0.2))
