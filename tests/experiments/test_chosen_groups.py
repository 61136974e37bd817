"""The groups of targets and items that a comparison is about."""

from types import SimpleNamespace

import pytest

from contracts.errors import InputError
from experiments.comparison.chosen_groups import chosen_ranks


def ranks_with(**groups):
    return SimpleNamespace(path="ranks.parquet", facts=SimpleNamespace(groups=groups))


def test_a_group_is_found_in_its_grouping():
    file = ranks_with(domain=("A", "B"), training=("warm", "cold", "never trained"))
    assert chosen_ranks("cold", "all", [file]).grouping == "training"
    assert chosen_ranks("A", "domain", [file]).grouping == "domain"


def test_a_dataset_called_like_a_group_by_training_is_refused():
    file = ranks_with(domain=("cold", "warm"), training=("warm", "cold", "never trained"))
    with pytest.raises(InputError, match=r"--targets cold: .* has a dataset of this name and a group"):
        chosen_ranks("cold", "all", [file])
