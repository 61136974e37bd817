"""The split of a source: training, validation and test parts in this order, each in order of time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import InputError
from jobs.prepare_data import prepare
from tests.data.small_files import sequences_of

rows = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(10**9, 10**9 + 4), st.integers(0, 2)),
    min_size=1,
    max_size=15,
    unique_by=lambda row: row[:3],
)


@pytest.mark.long
@settings(max_examples=25, deadline=None)
@given(rows=rows, has_times=st.booleans(), max_history=st.sampled_from([None, 1, 3]))
def test_parts_stay_together_and_are_in_order_of_time(
    rows: list[tuple[int, int, int, int]],
    has_times: bool,
    max_history: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("split")
    header = "userID\titemID\ttimestamp\tx_label" if has_times else "userID\titemID\tlabel\tx_label"
    (folder / "x.inter").write_text("\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n")
    options = {} if max_history is None else {"max_history": max_history}
    parts = {user: sorted(row[3] for row in rows if row[0] == user)[-(max_history or 99) :] for user in range(3)}
    if not any(0 in part for part in parts.values()):
        with pytest.raises(InputError, match="no interaction is for training in the source's own split"):
            prepare("mmrec", str(folder / "dataset"), str(folder / "x.inter"), **options)
        return
    dataset = prepare("mmrec", str(folder / "dataset"), str(folder / "x.inter"), **options)
    dataset.validate()
    users = [int(user) for user in dataset.user_source_ids().to_pylist()]
    items = dataset.item_source_ids().to_pylist()
    sequences = sequences_of(dataset)
    is_by_time = has_times
    for place, user in enumerate(users):
        own = [row for row in rows if row[0] == user]
        expected = sorted(own, key=lambda row: (row[3], row[2] if has_times else 0))[-(max_history or 99) :]
        assert [int(items[item]) for item in sequences[place]] == [row[1] for row in expected]
        assert dataset.train_end[place] == sum(row[3] == 0 for row in expected)
        assert dataset.valid_end[place] == sum(row[3] < 2 for row in expected)
        times = [row[2] for row in expected]
        is_by_time = is_by_time and times == sorted(times)
    assert users == list(dict.fromkeys(row[0] for row in rows))
    assert (dataset.timestamps is not None) == is_by_time
    if has_times:
        assert (dataset.manifest["split"]["users_not_in_order_of_time"] == 0) == is_by_time
    else:
        assert "users_not_in_order_of_time" not in dataset.manifest["split"]


def test_a_rule_takes_the_place_of_the_source_s_split(tmp_path: Path) -> None:
    lines = [
        "userID\titemID\ttimestamp\tx_label",
        *(f"0\t{item}\t{10**9 + item}\t{(item + 1) % 3}" for item in range(5)),
    ]
    (tmp_path / "x.inter").write_text("\n".join(lines))
    dataset = prepare("mmrec", str(tmp_path / "d"), str(tmp_path / "x.inter"), split="global-time", valid_fraction=0.5)
    assert dataset.manifest["split"]["method"] == "global-time"
    assert (dataset.train_end.tolist(), dataset.valid_end.tolist()) == ([2], [4])
    with pytest.raises(InputError, match="--valid-fraction: belongs to --split global-time"):
        prepare("mmrec", str(tmp_path / "e"), str(tmp_path / "x.inter"), valid_fraction=0.5)
