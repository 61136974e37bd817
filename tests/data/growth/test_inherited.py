"""Which options of OLD hold for a grown dataset, and what is said about them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from contracts.errors import InputError
from data.dataset import Dataset
from data.prepare.growth.inherited import Inherited, inherited
from data.prepare.pipeline import ALLOWED

SOURCE = {
    "format": "table", "path": "old.csv", "features": {}, "min_user_interactions": 2, "min_item_interactions": 3,
    "max_history": 50, "user_column": "who", "keep": ["rating >= 4"], "delimiter": ";", "items": "items.csv",
    "title_column": ["title"],
}  # fmt: skip
MOMENTS = {"method": "global-time", "valid_from": 5, "test_from": 7, "valid_fraction": 0.8, "test_fraction": 0.9}


def taken(given: dict[str, Any], split: dict[str, Any], path: str = "new.csv", kind: str = "table") -> Inherited:
    old = cast(Dataset, SimpleNamespace(path="OLD", manifest={"source": SOURCE, "split": split}))
    return inherited(old, kind, [path], given, ALLOWED[kind])


def test_what_is_not_given_is_as_in_old() -> None:
    found = taken({}, {"method": "leave-one-out"})
    assert found.options == found.taken
    assert found.options == {
        "min_user_interactions": 2, "min_item_interactions": 3, "max_history": 50, "user_column": "who",
        "keep": ["rating >= 4"], "delimiter": ";", "split": "leave-one-out",
    }  # fmt: skip
    assert found.lines("OLD") == [
        "as in OLD: --max-history 50 --min-item-interactions 3 --min-user-interactions 2 --split leave-one-out "
        "--delimiter ';' --keep 'rating >= 4' --user-column who"
    ]


def test_what_is_given_wins_and_is_said() -> None:
    found = taken({"min_user_interactions": 5, "user_column": "who"}, {"method": "leave-one-out"})
    assert (found.options["min_user_interactions"], found.options["user_column"]) == (5, "who")
    assert found.lines("OLD")[1:] == ["--min-user-interactions 5, in OLD --min-user-interactions 2"]


def test_how_rows_are_read_is_taken_from_the_same_kind_of_file_only() -> None:
    assert "delimiter" not in taken({}, {"method": "leave-one-out"}, "new.parquet").options
    assert "user_column" not in taken({}, {"method": "leave-one-out"}, kind="recbole").options


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"split": "global-time", "valid_from": 5, "test_from": 7}),
        ({"valid_from": 6, "test_from": 9}, {"split": "global-time", "valid_from": 6, "test_from": 9}),
        (
            {"valid_fraction": 0.7},
            {"split": "global-time", "valid_fraction": 0.7, "test_fraction": 0.9},
        ),
        ({"split": "leave-one-out"}, {"split": "leave-one-out"}),
    ],
)
def test_moments_of_the_split_stay_unless_others_or_fractions_are_given(
    given: dict[str, Any], expected: dict[str, Any]
) -> None:
    options = taken(given, MOMENTS).options
    assert {name: value for name, value in options.items() if name.startswith(("split", "valid_", "test_"))} == expected


def test_a_split_of_the_files_needs_a_rule() -> None:
    with pytest.raises(InputError, match="add --split"):
        taken({}, {"method": "given", "given_by": "the source's files"})
    assert taken({"split": "leave-one-out"}, {"method": "given"}).options["split"] == "leave-one-out"
