"""Files of ranks: what is written is read again, in rows of bounded number, and damaged files are refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputError
from evaluation import saved_ranks
from evaluation.saved_ranks import RankFacts, open_ranks, ranks_path, write_ranks

FACTS = RankFacts(
    split="test",
    model="sasrec",
    seed=3,
    checkpoint_step=20,
    settings={"mask_history": False, "ks": [10]},
    fingerprints={"dataset": "d"},
)
USERS = pa.array(["ann", "bob", "eve"], pa.large_string())
ITEMS = pa.array(["x", "y"], pa.large_string())


def written(path, count=5):
    rows = np.arange(count)
    write_ranks(
        path,
        FACTS,
        users=rows % 3,
        positions=rows + 1,
        items=rows % 2,
        ranks=rows + 2**40,
        user_names=USERS,
        item_names=ITEMS,
    )
    return path


def test_columns_are_source_ids_and_whole_numbers(tmp_path):
    table = pq.read_table(written(tmp_path / "ranks-test.parquet"))
    assert {field.name: str(field.type) for field in table.schema} == {
        "user": "string",
        "position": "int32",
        "item": "string",
        "rank": "int64",
    }
    assert table.to_pydict() == {
        "user": ["ann", "bob", "eve", "ann", "bob"],
        "position": [1, 2, 3, 4, 5],
        "item": ["x", "y", "x", "y", "x"],
        "rank": [2**40 + row for row in range(5)],
    }


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_chunks_have_the_rows_of_the_file_whatever_its_row_groups(tmp_path, monkeypatch, size):
    monkeypatch.setattr(saved_ranks, "ROW_GROUP", 2)
    path = written(tmp_path / "ranks-test.parquet")
    assert pq.ParquetFile(path).metadata.num_row_groups == 3
    monkeypatch.setattr(saved_ranks, "ROW_GROUP", size)
    opened = open_ranks(path)
    assert (opened.facts, opened.num_targets) == (FACTS, 5)
    chunks = list(opened.chunks())
    assert [len(ranks) for _, ranks in chunks] == [size] * (5 // size) + [5 % size] * (5 % size > 0)
    assert (
        pa.concat_tables([targets for targets, _ in chunks])
        == pq.read_table(path, columns=["user", "position", "item"]).replace_schema_metadata()
    )
    assert np.concatenate([ranks for _, ranks in chunks]).tolist() == [2**40 + row for row in range(5)]


def test_no_target_is_a_file_without_rows(tmp_path):
    opened = open_ranks(written(tmp_path / "ranks-test.parquet", count=0))
    assert opened.num_targets == 0
    assert list(opened.chunks()) == []


def test_names_follow_the_result_file(tmp_path):
    assert ranks_path(tmp_path / "metrics.json", "test") == tmp_path / "ranks-test.parquet"
    other = tmp_path / "evaluation-best-cooccurrence_weight=0.5,mask_history=true.json"
    assert ranks_path(other, "valid").name == (
        "evaluation-best-cooccurrence_weight=0.5,mask_history=true-ranks-valid.parquet"
    )


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = written(tmp_path / "ranks-test.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"ranks-test\.parquet: is not a readable file of ranks"):
        open_ranks(path)
    pq.write_table(pa.table({"user": ["ann"]}), path)
    with pytest.raises(InputError, match="is not a readable file of ranks"):
        open_ranks(path)
    with pytest.raises(InputError, match="is not a readable file of ranks"):
        open_ranks(tmp_path / "none.parquet")
    damaged = bytearray(whole)
    damaged[4:40] = b"\xff" * 36
    path.write_bytes(bytes(damaged))
    with pytest.raises(InputError, match=r"is not a readable file of ranks .*; delete the file and write it again"):
        list(open_ranks(path).chunks())
