"""Raw interactions to a dataset: each step against its definition, features by id, and the command itself."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import InputError
from data.dataset import Dataset
from jobs.prepare_data import main, prepare
from tests.data.engine.in_memory import first_of_duplicates, k_core, most_recent, ordered_by_time
from tests.data.small_files import sequences_of, write_unisrec

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), max_size=40)


def _arrays(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    users, items, times = np.array(rows, np.int64).reshape(-1, 3).T
    return users, items, times


@settings(deadline=None)
@given(PAIRS, st.integers(1, 4), st.integers(1, 4))
def test_k_core_is_the_largest_set_that_satisfies_both(
    rows: list[tuple[int, int, int]], min_user: int, min_item: int
) -> None:
    # One interaction at a time goes, whichever is first found to violate: the slow definition.
    kept = list(range(len(rows)))
    while True:
        users, items = Counter(rows[i][0] for i in kept), Counter(rows[i][1] for i in kept)
        bad = [i for i in kept if users[rows[i][0]] < min_user or items[rows[i][1]] < min_item]
        if not bad:
            break
        kept.remove(bad[0])
    mask = k_core(*_arrays(rows)[:2], min_user, min_item)
    assert np.flatnonzero(mask).tolist() == kept


@settings(deadline=None)
@given(PAIRS)
def test_the_first_of_exact_duplicates_stays(rows: list[tuple[int, int, int]]) -> None:
    expected = [row not in rows[:index] for index, row in enumerate(rows)]
    assert first_of_duplicates(*_arrays(rows)).tolist() == expected


@settings(deadline=None)
@given(PAIRS, st.integers(1, 5))
def test_time_order_keeps_ties_in_input_order(rows: list[tuple[int, int, int]], max_history: int) -> None:
    users, _, times = _arrays(rows)
    order, offsets = ordered_by_time(users, times, 6)
    recent, recent_offsets = most_recent(offsets, max_history)
    for user in range(6):
        expected = sorted((i for i, row in enumerate(rows) if row[0] == user), key=lambda i: rows[i][2])
        assert order[offsets[user] : offsets[user + 1]].tolist() == expected
        kept = recent[recent_offsets[user] : recent_offsets[user + 1]]
        assert order[kept].tolist() == expected[-max_history:]


def _table(file: Path, rows: list[tuple[object, object, object]]) -> str:
    columns = {name: pa.array([row[i] for row in rows]) for i, name in enumerate(("user", "item", "timestamp"))}
    pq.write_table(pa.table(columns), file)
    return str(file)


ROWS: list[tuple[object, object, object]] = [
    ("u", "b", 9),
    ("v", "a", 3),
    ("u", "a", 5),
    ("u", "a", 5),  # duplicate
    ("u", "c", 5),  # tie: stays after a
    (None, "a", 1),
    ("v", "b", 1),
    ("w", "d", 2),  # w and d occur once: out of the 2-core
    ("v", "c", None),
    ("v", "c", 2),
    ("v", "b", 8),
]
TWO_CORE = {"min_user_interactions": 2, "min_item_interactions": 2}


def test_raw_interactions_become_sequences_and_every_drop_is_counted(tmp_path: Path) -> None:
    source = _table(tmp_path / "x.parquet", ROWS)
    dataset = prepare("table", str(tmp_path / "d"), source, **TWO_CORE)
    dataset.validate()
    assert dataset.item_source_ids().to_pylist() == ["b", "a", "c"]  # order of first appearance
    assert dataset.user_source_ids().to_pylist() == ["u", "v"]
    assert sequences_of(dataset) == [[1, 2, 0], [0, 2, 1, 0]]
    assert dataset.timestamps is not None
    assert dataset.timestamps.tolist() == [5, 5, 9, 1, 2, 3, 8]
    assert dataset.train_end.tolist() == [1, 2]
    assert dataset.manifest["dropped"] == {
        "rows_with_null": 2,
        "duplicates": 1,
        "k_core_interactions": 1,
        "k_core_users": 1,
        "k_core_items": 1,
        "truncated_interactions": 0,
    }
    recent = prepare("table", str(tmp_path / "e"), source, **TWO_CORE, max_history=2)
    recent.validate()
    assert sequences_of(recent) == [[2, 0], [1, 0]]
    assert recent.valid_end.tolist() == [2, 2]  # fewer than 3: training only
    assert recent.manifest["dropped"]["truncated_interactions"] == 3


def test_global_time_split_of_a_command(tmp_path: Path) -> None:
    source = _table(tmp_path / "x.parquet", ROWS)
    options = {**TWO_CORE, "split": "global-time", "valid_from": 3, "test_from": 9}
    dataset = prepare("table", str(tmp_path / "d"), source, **options)
    dataset.validate()
    assert (dataset.train_end.tolist(), dataset.valid_end.tolist()) == ([0, 2], [2, 4])
    assert dataset.manifest["split"]["valid_from"] == 3


def _features(folder: Path) -> dict[str, str]:
    vectors = pa.array([[1.0, 2.0], [3.0, 4.0], None], pa.list_(pa.float64(), 2))
    pq.write_table(pa.table({"item": ["a", "z", "b"], "vector": vectors}), folder / "image.parquet")
    np.save(folder / "text.npy", np.array([[1, 2, 3], [0, 0, 0], [7, 8, 9]], np.float16))
    (folder / "ids.txt").write_text("c\na\nb\n")
    return {"image": str(folder / "image.parquet"), "text": str(folder / "text.npy")}


def test_features_find_their_items_by_id(tmp_path: Path) -> None:
    source, features = _table(tmp_path / "x.parquet", ROWS), _features(tmp_path)
    ids = {"text": str(tmp_path / "ids.txt")}
    dataset = prepare("table", str(tmp_path / "d"), source, features=features, feature_ids=ids, **TWO_CORE)
    dataset.validate()
    assert dataset.features("image").tolist() == [[0, 0], [1, 2], [0, 0]]  # items b, a, c
    assert dataset.features("text").tolist() == [[7, 8, 9], [0, 0, 0], [1, 2, 3]]
    assert dataset.features("text").dtype == np.float16
    assert dataset.presence("image").tolist() == [False, True, False]
    assert dataset.presence("text").tolist() == [True, False, True]
    assert dataset.manifest["dropped"]["feature_rows_without_item_image"] == 1


def _vectors(file: Path, items: list[str], vectors: pa.Array) -> None:
    pq.write_table(pa.table({"item": items, "vector": vectors}), file)


def test_bad_features_are_named(tmp_path: Path) -> None:
    source, features = _table(tmp_path / "x.parquet", ROWS), _features(tmp_path)
    image, text = Path(features["image"]), {"text": features["text"]}

    def refused(message: str, files: dict[str, str], ids: str | None = None) -> None:
        with pytest.raises(InputError, match=message):
            prepare(
                "table",
                str(tmp_path / "d"),
                source,
                features=files,
                feature_ids={"text": ids} if ids else {},
                **TWO_CORE,
            )
        assert not (tmp_path / "d").exists()

    refused(r"text\.npy: does not tell which item each row belongs to; add --feature-ids text=IDS", text)
    (tmp_path / "short.txt").write_text("c\n")
    refused(r"short\.txt: 1 ids for 3 feature rows", text, str(tmp_path / "short.txt"))
    (tmp_path / "other.txt").write_text("x\ny\nz\n")
    refused("none of its 3 ids is an item of the interactions", text, str(tmp_path / "other.txt"))
    (tmp_path / "twice.txt").write_text("a\na\nb\n")
    refused("item 'a' has more than one row", text, str(tmp_path / "twice.txt"))
    refused("no --features text=FILE goes with it", {}, str(tmp_path / "ids.txt"))
    only_image = {"image": str(image)}
    _vectors(image, ["a", "b"], pa.array([[1.0, 2.0], [3.0]]))
    refused(r"image\.parquet: row 1 has 1 values, row 0 has 2", only_image)
    _vectors(image, ["a", "b"], pa.array([[1, 2], [3, 4]]))
    refused(r"column vector is list<.*int64.*>, expected a list of float", only_image)
    _vectors(image, ["z", "b"], pa.array([[1.0, 2.0], [3.0, float("nan")]]))
    refused(r"image\.parquet: row 1, column 1 is nan", only_image)
    _vectors(image, ["a", "b"], pa.array([[1e300, 2.0], [3.0, 4.0]]))
    refused(r"image\.parquet: row 0, column 0 is inf, .*fit float32", only_image)
    image.write_bytes(image.read_bytes()[:-9])
    refused(r"image\.parquet: not a readable Parquet file", only_image)


def test_nothing_left_and_bad_options_are_input_errors(tmp_path: Path) -> None:
    source, output = _table(tmp_path / "x.parquet", ROWS), str(tmp_path / "d")
    with pytest.raises(InputError, match="none of its 11 rows is left after the 5/5-core; lower --min-user"):
        prepare("table", output, source)
    with pytest.raises(InputError, match="--max-history 0: must be at least 1"):
        prepare("table", output, source, max_history=0)
    with pytest.raises(InputError, match="--valid-from: belongs to --split global-time"):
        prepare("table", output, source, valid_from=3)
    with pytest.raises(InputError, match="--max-history: is not an option of --format unisrec"):
        prepare("unisrec", output, source, max_history=3)
    with pytest.raises(InputError, match="--user-column: is not an option of --format recbole"):
        prepare("recbole", output, source, user_column="u")
    with pytest.raises(InputError, match="--format table: needs --input"):
        prepare("table", output)
    with pytest.raises(InputError, match="makes its own data"):
        prepare("synthetic", output, source)
    with pytest.raises(InputError, match="scheme 'ftp' is not supported"):
        prepare("table", "ftp://bucket/d", source)


def test_the_command_says_what_it_wrote_and_refuses_to_write_twice(tmp_path: Path) -> None:
    source = write_unisrec(tmp_path / "source", [[0, 1, 2, 3, 4], [3, 2, 1]])
    np.save(tmp_path / "f.npy", np.eye(5, 3, dtype=np.float32))
    output = str(tmp_path / "d")
    arguments = ["--format", "unisrec", "--input", str(source), "--output", output]
    first = CliRunner().invoke(main, [*arguments, "--features", f"image={tmp_path / 'f.npy'}"])
    assert first.exit_code == 0, first.output
    expected = f"wrote dataset {output}: 2 users, 5 items, 8 interactions, modalities image (3 of 5)"
    assert first.output.splitlines()[-1] == expected
    assert "interactions for training: 4, validation: 2, test: 2" in first.output
    fingerprint = Dataset.open(output).fingerprint
    second = CliRunner().invoke(main, arguments)
    assert (second.exit_code, second.stdout) == (2, "")
    assert second.stderr == (
        f"error: output {output}: the folder exists and is not empty; name another or pass --overwrite\n"
    )
    assert Dataset.open(output).fingerprint == fingerprint
    assert CliRunner().invoke(main, [*arguments, "--overwrite"]).exit_code == 0
    assert Dataset.open(output).modalities == ()
    bad = CliRunner().invoke(main, [*arguments, "--overwrite", "--features", "image"])
    assert bad.stderr == "error: --features image: expected NAME=FILE, each name once\n"


def test_the_script_runs_from_a_checkout_without_a_traceback(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "jobs/prepare_data.py", "--format", "recbole", "--input", "none.inter", "--output"]
    result = subprocess.run([*command, str(tmp_path / "d")], cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "error: none.inter: no such file; --format recbole reads .inter files\n"
