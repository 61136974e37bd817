"""What `jobs/prepare_data.py` prints at its end says what is in each part of the split, and what is empty."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from data.dataset import Dataset
from jobs.cli import job
from jobs.prepare_data import main

ROWS = "user,item,timestamp\n" + "".join(
    f"u{user},i{(user + step) % 7},{1_600_000_000 + step}\n" for user in range(5) for step in range(4)
)
EVERYTHING = ["--min-user-interactions", "1", "--min-item-interactions", "1"]


def said(tmp_path: Path, *options: str) -> list[str]:
    (tmp_path / "x.csv").write_text(ROWS)
    arguments = ["--format", "table", "--input", str(tmp_path / "x.csv"), "--output", str(tmp_path / "d"), *EVERYTHING]
    done = CliRunner().invoke(main, [*arguments, *options])
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def test_each_part_is_counted_and_nothing_is_noted_if_all_have_rows(tmp_path: Path) -> None:
    lines = said(tmp_path)
    assert "interactions for training: 10, validation: 5, test: 5" in lines
    assert not [line for line in lines if line.startswith("note:")]
    assert not [line for line in lines if "with a text" in line or "without an interaction" in line]


def test_short_histories_leave_parts_empty_and_items_without_rows(tmp_path: Path) -> None:
    lines = said(tmp_path, "--max-history", "1")
    assert "interactions for training: 5, validation: 0, test: 0" in lines
    notes = [line for line in lines if line.startswith("note:")]
    assert len(notes) == 2
    assert all("3 interactions" in note for note in notes)
    # i3, i4, i5, i6 and i0 are the last items of the users.
    assert "items without an interaction after --max-history: 2; they stay in the catalogue" in lines


def test_times_in_another_unit_leave_parts_empty(tmp_path: Path) -> None:
    late = ["--split", "global-time", "--valid-from", "1600000000002", "--test-from", "1600000000003"]
    lines = said(tmp_path, *late)
    assert "interactions for training: 20, validation: 0, test: 0" in lines
    assert sum(line.startswith("note: nothing is for") and "unit of the data" in line for line in lines) == 2
    rule = Dataset.open(str(tmp_path / "d")).manifest["split"]
    assert rule == {"method": "global-time", "valid_from": 1600000000002, "test_from": 1600000000003}


def said_of_a_given_split(tmp_path: Path, times: list[int], *options: str) -> list[str]:
    """What is said about a user whose items are for training, training, validation and test."""
    rows = [f"0\t{item}\t{10**9 + time}\t{max(0, item - 1)}" for item, time in enumerate(times)]
    (tmp_path / "x.inter").write_text("\n".join(["userID\titemID\ttimestamp\tx_label", *rows]) + "\n")
    arguments = ["--format", "mmrec", "--input", str(tmp_path / "x.inter"), "--output", str(tmp_path / "d")]
    done = CliRunner().invoke(main, [*arguments, *options])
    assert done.exit_code == 0, done.output
    return [line for line in done.output.splitlines() if line.startswith("note:")]


def test_a_part_that_the_files_leave_empty_is_not_blamed_on_short_histories(tmp_path: Path) -> None:
    (note,) = said_of_a_given_split(tmp_path, [1, 2, 3, 4], "--keep", "x_label != 2")
    assert "nothing is for test; the split is that of the files" in note
    assert "--split draws another" in note


def test_a_split_that_is_not_by_time_says_that_there_are_no_timestamps(tmp_path: Path) -> None:
    assert not said_of_a_given_split(tmp_path, [1, 2, 3, 4])
    (note,) = said_of_a_given_split(tmp_path, [1, 2, 4, 3], "--overwrite")
    assert "the dataset has no timestamps" in note
    assert "not in order of time for 1 of 1 users" in note
    assert Dataset.open(str(tmp_path / "d")).timestamps is None
    assert not said_of_a_given_split(tmp_path, [1, 2, 4, 3], "--overwrite", "--split", "leave-one-out")
    assert Dataset.open(str(tmp_path / "d")).timestamps is not None


@pytest.mark.long
def test_of_rows_that_differ_in_other_columns_only_the_first_that_is_kept_counts(tmp_path: Path) -> None:
    rows = "user,item,timestamp,rating\nu,a,1600000000,1\nu,a,1600000000,5\nu,a,1600000000,4\nu,b,1600000001,5\n"
    (tmp_path / "x.csv").write_text(rows)
    arguments = ["--format", "table", "--input", str(tmp_path / "x.csv"), *EVERYTHING]
    counts = []
    for name, more in (("all", []), ("high", ["--keep", "rating >= 4"]), ("low", ["--keep", "rating < 4"])):
        done = CliRunner().invoke(main, [*arguments, "--output", str(tmp_path / name), *more])
        assert done.exit_code == 0, done.output
        manifest = Dataset.open(str(tmp_path / name)).manifest
        counts.append((manifest["num_interactions"], manifest["dropped"]["duplicates"]))
    assert counts == [(2, 2), (2, 1), (1, 0)]


def test_titles_are_counted(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item,title\ni1,One\ni2,\n")
    lines = said(tmp_path, "--items", str(tmp_path / "items.csv"), "--title-column", "title")
    assert "items with a text: 1 of 7" in lines


def test_an_interrupted_job_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    @job
    def endless() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        endless()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("interrupted: repeat the command to continue")
