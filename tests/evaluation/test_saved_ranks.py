"""Files of ranks: what is written is read again, in rows of bounded number, and damaged files are refused."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputError
from evaluation import saved_ranks
from evaluation.saved_ranks import ChosenRanks, RankFacts, open_ranks, ranks_path, write_ranks

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


GROUPED = replace(FACTS, groups={"domain": ["A", "B"], "training": ["warm", "cold"]})


def written(path, count=5, facts=FACTS):
    rows = np.arange(count)
    labels = {"domain": (rows >= 3).astype(np.int32), "training": (rows % 2).astype(np.int32)}
    write_ranks(
        path,
        facts,
        users=rows % 3,
        positions=rows + 1,
        items=rows % 2,
        ranks=rows + 2**40,
        user_names=USERS,
        item_names=ITEMS,
        within={name: (labels[name], rows + 10 * (1 + n)) for n, name in enumerate(facts.groups)},
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


def test_each_grouping_adds_the_group_and_the_rank_in_it(tmp_path):
    plain, table = (
        pq.read_table(written(tmp_path / name, facts=facts)) for name, facts in (("a", FACTS), ("b", GROUPED))
    )
    assert table.column_names == [*plain.column_names, "domain", "rank_in_domain", "training", "rank_in_training"]
    assert table.select(plain.column_names).to_pydict() == plain.to_pydict()
    assert table["domain"].to_pylist() == ["A", "A", "A", "B", "B"]
    assert table["rank_in_domain"].to_pylist() == [10, 11, 12, 13, 14]
    assert table["training"].to_pylist() == ["warm", "cold", "warm", "cold", "warm"]
    assert table["rank_in_training"].to_pylist() == [20, 21, 22, 23, 24]
    assert open_ranks(tmp_path / "b").facts == GROUPED
    assert b"groups" not in plain.schema.metadata[b"mdsrec_ranks"], "as written by earlier versions"


@pytest.mark.parametrize("size", [1, 2, 100])
def test_chunks_are_of_the_chosen_targets_and_ranks(tmp_path, monkeypatch, size):
    monkeypatch.setattr(saved_ranks, "ROW_GROUP", size)
    opened = open_ranks(written(tmp_path / "ranks-test.parquet", facts=GROUPED))
    for chosen, positions, ranks in (
        (ChosenRanks(), [1, 2, 3, 4, 5], [2**40 + row for row in range(5)]),
        (ChosenRanks(among="domain"), [1, 2, 3, 4, 5], [10, 11, 12, 13, 14]),
        (ChosenRanks(grouping="training", group="cold"), [2, 4], [2**40 + 1, 2**40 + 3]),
        (ChosenRanks(grouping="domain", group="B", among="training"), [4, 5], [23, 24]),
        (ChosenRanks(grouping="domain", group="C"), [], []),
    ):
        chunks = list(opened.chunks(chosen))
        assert [place for targets, _ in chunks for place in targets["position"].to_pylist()] == positions
        assert [rank for _, found in chunks for rank in found.tolist()] == ranks
        assert all(targets.column_names == ["user", "position", "item"] for targets, _ in chunks)
        assert all(len(found) <= size for _, found in chunks)


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
