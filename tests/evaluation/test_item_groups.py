"""Groupings of the items: which apply to a dataset and split, the label of every item, and the sizes of groups."""

from __future__ import annotations

import numpy as np
import pytest

from data.domains import Domain
from evaluation import item_groups
from evaluation.item_groups import COLD, NEVER_TRAINED, WARM, domain_grouping, groupings_of, labels_of
from tests.sequences import Sequences

# Two users: [0 1 | 2 | 3] and [1 0 | 4 | 0]; the bars are before the validation target and before the test target.
SEQUENCES = {
    "num_items": 6,
    "num_users": 2,
    "offsets": np.array([0, 4, 8]),
    "items": np.array([0, 1, 2, 3, 1, 0, 4, 0]),
    "train_end": np.array([2, 2]),
    "valid_end": np.array([3, 3]),
}


class Data(Sequences):
    """Sequences with domains and items that were held out; no item is, and there is one domain."""

    cold: np.ndarray | None = None
    sizes: tuple[int, ...] = (6,)

    def cold_items(self) -> np.ndarray | None:
        return self.cold

    @property
    def domains(self) -> tuple[Domain, ...]:
        firsts = np.cumsum([0, *self.sizes[:-1]]).tolist()
        return tuple(
            Domain(
                name=f"d{first}", path="", fingerprint="", first_user=0, num_users=0, first_item=first, num_items=size
            )
            for first, size in zip(firsts, self.sizes, strict=True)
        )


def data(cold: list[bool] | None = None, sizes: tuple[int, ...] = (6,), **changes: np.ndarray) -> Data:
    made = Data(**{**SEQUENCES, **changes})
    made.cold, made.sizes = None if cold is None else np.array(cold), sizes
    return made


@pytest.mark.parametrize("block", [1, 1 << 20])
def test_items_are_grouped_by_training_only_if_a_target_was_never_trained(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(item_groups, "_BLOCK", block)
    trained = data(items=np.array([0, 1, 0, 1, 1, 0, 0, 1]))  # items 2 to 5 are nobody's
    assert groupings_of(trained, "valid") == groupings_of(trained, "test") == ()
    last = data(items=np.array([0, 1, 0, 1, 1, 0, 0, 5]))
    assert groupings_of(last, "valid") == ()
    (found,) = groupings_of(last, "test")
    assert found.name == "training"
    assert found.of(np.arange(6)).tolist() == [WARM, WARM, *[NEVER_TRAINED] * 4]
    assert [(group.name, group.size) for group in found.groups] == [("warm", 2), ("cold", 0), ("never trained", 4)]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_items_that_were_held_out_are_cold_and_the_other_untrained_ones_are_not(split: str) -> None:
    (found,) = groupings_of(data(cold=[False, False, True, False, True, False]), split)
    labels = found.of(np.array([5, 4, 3, 2, 1, 0]))
    assert labels.dtype == np.int32
    assert labels.tolist() == [NEVER_TRAINED, COLD, NEVER_TRAINED, COLD, WARM, WARM]
    assert [(group.name, group.size) for group in found.groups] == [("warm", 2), ("cold", 2), ("never trained", 2)]


def test_domains_are_groups_of_consecutive_items() -> None:
    joined = data(sizes=(1, 3, 2), items=np.array([0, 1, 0, 1, 1, 0, 0, 1]))
    (found,) = groupings_of(joined, "test")
    assert [one.groups for one in domain_grouping(joined)] == [found.groups]
    assert found.of(np.arange(6)).tolist() == [0, 1, 1, 1, 2, 2]
    assert [(group.name, group.size) for group in found.groups] == [("d0", 1), ("d1", 3), ("d4", 2)]


def test_both_groupings_may_apply() -> None:
    both = groupings_of(data(sizes=(3, 3)), "test")
    assert [grouping.name for grouping in both] == ["domain", "training"]
    assert labels_of(both, np.array([0, 3])).tolist() == [[0, WARM], [1, NEVER_TRAINED]]
    assert labels_of((), np.array([0, 3])).shape == (2, 0)
