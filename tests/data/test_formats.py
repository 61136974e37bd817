"""Readers: what they accept, what they put together, and what they refuse by file and row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import InputError
from data.dataset import write_dataset
from data.formats.unisrec import UniSRecFolder, read_unisrec
from data.prepare.pipeline import unisrec_content
from tests.data.read_rows import read_recbole, read_table
from tests.data.small_files import HEADER, REAL, sequences_of, write_index, write_rows, write_unisrec

SEQUENCES = [[0, 1, 2, 3, 4], [3, 2, 1], [4, 0, 5, 0, 1, 2, 3]]


def _lists(folder: UniSRecFolder) -> list[list[int]]:
    return [part.tolist() for part in np.split(folder.sequences.items, folder.sequences.offsets[1:-1])]


def test_unisrec_gives_whole_sequences_and_their_split(tmp_path: Path) -> None:
    data = read_unisrec(str(write_unisrec(tmp_path, SEQUENCES)))
    assert _lists(data) == SEQUENCES
    assert data.sequences.train_end.tolist() == [3, 1, 5]
    assert data.sequences.valid_end.tolist() == [4, 2, 6]
    assert data.sequences.timestamps is None
    assert data.item_source_ids.to_pylist() == list("012345")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=12), min_size=1, max_size=5),
    st.integers(1, 6),
    st.booleans(),
)
def test_cut_histories_are_put_together_from_the_train_rows(
    tmp_path_factory: pytest.TempPathFactory, sequences: list[list[int]], max_length: int, ascending: bool
) -> None:
    # The first user's short rows tell the file's direction; alone, a user of equal rows cannot.
    everyone = [[3, 2, 1, 0, 1, 2], *sequences]
    folder = write_unisrec(tmp_path_factory.mktemp("cut"), everyone, max(max_length, 2), ascending=ascending)
    data = read_unisrec(str(folder))
    assert _lists(data) == everyone
    assert data.source["users_with_cut_history"] == 0


def test_cut_histories_without_train_rows_are_kept_and_counted(tmp_path: Path) -> None:
    data = read_unisrec(str(write_unisrec(tmp_path, SEQUENCES, max_length=2, train=False)))
    assert _lists(data) == [[1, 2, 3, 4], [3, 2, 1], [0, 1, 2, 3]]
    assert data.source["users_with_cut_history"] == 2


def test_a_valid_history_cut_shorter_than_the_test_history_takes_the_longer(tmp_path: Path) -> None:
    write_rows(tmp_path / "Toy.valid.inter", [(0, [2], 3)])
    write_rows(tmp_path / "Toy.test.inter", [(0, [0, 1, 2, 3], 4)])
    assert _lists(read_unisrec(str(tmp_path))) == [[0, 1, 2, 3, 4]]


def test_windows_line_endings_and_any_order_of_users(tmp_path: Path) -> None:
    write_rows(tmp_path / "Toy.valid.inter", [(1, [0], 1), (0, [2, 0], 1)], ending="\r\n")
    write_rows(tmp_path / "Toy.test.inter", [(0, [2, 0, 1], 2), (1, [0, 1], 2)], ending="\r\n")
    assert _lists(read_unisrec(str(tmp_path))) == [[2, 0, 1, 2], [0, 1, 2]]


def test_tokens_that_are_no_numbering_are_numbered_by_first_appearance(tmp_path: Path) -> None:
    rows = {"valid": "bob\tB9 A1\tC3", "test": "bob\tB9 A1 C3\t07"}
    for name, row in rows.items():
        (tmp_path / f"Toy.{name}.inter").write_text(f"{HEADER}\n{row}\n")
    data = read_unisrec(str(tmp_path))
    assert _lists(data) == [[0, 1, 2, 3]]
    assert data.item_source_ids.to_pylist() == ["B9", "A1", "C3", "07"]
    assert data.source["numbering_of_items"] == "order of first appearance"
    np.save(tmp_path / "Toy.text_x.npy", np.ones((4, 2), np.float32))
    with pytest.raises(InputError, match=r"which item each row belongs to; add --feature-ids text=IDS\.txt"):
        unisrec_content(str(tmp_path), {}, {})


def test_index_files_texts_and_features(tmp_path: Path) -> None:
    write_unisrec(tmp_path, SEQUENCES)
    write_index(tmp_path, 3, 7)  # item 6 occurs nowhere: allowed, it is in the index
    (tmp_path / "Toy.text").write_text('item_id:token\ttext:token_seq\nitem3\ta "quoted" one\nitem9\t?\nitem0\tb\n')
    features = np.ones((7, 2))
    features[4] = 0
    np.save(tmp_path / "Toy.image_clip.npy", features)
    dataset = write_dataset(str(tmp_path / "out"), unisrec_content(str(tmp_path), {}, {}))
    dataset.validate()
    assert sequences_of(dataset) == SEQUENCES
    assert dataset.item_source_ids().to_pylist() == [f"item{i}" for i in range(7)]
    texts = dataset.item_texts()
    assert texts is not None
    assert texts.to_pylist() == ["b", None, None, 'a "quoted" one', None, None, None]
    assert dataset.manifest["dropped"] == {"texts_of_unknown_items": 1, "repeated_texts": 0}
    assert dataset.features("image").dtype == np.float32  # float64 is converted
    assert dataset.presence("image").tolist() == [True] * 4 + [False] + [True] * 2


def _append(file: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / file).open("a").write(text)


def _write(file: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_text(text)


def _truncate(file: str, removed: int) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:-removed])


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "wrong header": (_write("Toy.test.inter", "user\titems\ttarget\n0\t1\t2\n"), r"Toy\.test\.inter: header is 'user "),
    "plain interactions": (
        _write("Toy.valid.inter", "user_id:token\titem_id:token\ttimestamp:float\n"),
        "plain interactions are --format recbole",
    ),
    "empty file": (_write("Toy.test.inter", ""), r"Toy\.test\.inter: is empty"),
    "header only": (_write("Toy.valid.inter", HEADER + "\n"), r"Toy\.valid\.inter: has a header and no rows"),
    "not text": (lambda f: (f / "Toy.test.inter").write_bytes(b"\x1f\x8b\xff\xfe"), "not UTF-8"),
    "row cut inside": (_truncate("Toy.test.inter", 4), r"Toy\.test\.inter: row 4 has 2 columns, expected 3"),
    "rows cut off": (_truncate("Toy.test.inter", 16), r"Toy\.test\.inter: user 2 .*has 0 rows, expected 1"),
    "user twice": (_append("Toy.valid.inter", "1\t3\t2\n"), r"Toy\.valid\.inter: user 1 .*has 2 rows"),
    "empty history": (_append("Toy.train.inter", "1\t\t3\n"), r"Toy\.train\.inter: row 8 \(user 1\) has an empty"),
    "blank history": (_append("Toy.train.inter", "1\t  \t3\n"), r"row 8 \(user 1\) has an empty item_id_list"),
    "no target": (_append("Toy.train.inter", "1\t3\t\n"), r"row 8 \(user 1\) has no target item"),
    "two targets": (_append("Toy.train.inter", "1\t3\t1 2\n"), "has several items as its target"),
    "no integer": (
        _append("Toy.train.inter", "1\t3 x7\t2\n"),
        r"row 8 has item 'x7', the item2index file knows 0 to 5",
    ),
    "item out of range": (_append("Toy.train.inter", "1\t3 6\t2\n"), r"row 8 has item '6', the item2index file"),
    "user out of range": (_append("Toy.train.inter", "3\t3\t2\n"), r"row 8 has user '3', the user2index file"),
    "index gap": (
        lambda f: _write("Toy.item2index", (f / "Toy.item2index").read_text().replace("\t3", "\t8"))(f),
        r"Toy\.item2index: row 4 has index '8', expected 0 to 5 for its 6 rows: the ids have a gap",
    ),
    "index twice": (
        lambda f: _write("Toy.item2index", (f / "Toy.item2index").read_text().replace("\t3", "\t2"))(f),
        r"Toy\.item2index: index 2 occurs 2 times and 3 never",
    ),
    "user without a history": (_append("Toy.user2index", "user3\t3\n"), r"user 3 \(source id 'user3'\) has 0 rows"),
    "contradicting test": (
        _write("Toy.test.inter", HEADER + "\n0\t0 1 2 3\t4\n1\t3 1\t1\n2\t4 0 5 0 1 2\t3\n"),
        r"Toy\.test\.inter: the history of user 1 \(source id 'user1'\) contradicts",
    ),
    "contradicting train": (
        _append("Toy.train.inter", "0\t1\t2\n"),
        r"Toy\.train\.inter: row \d of user 0 \(source id 'user0'\) is not a prefix",
    ),
    "no valid file": (lambda f: (f / "Toy.valid.inter").unlink(), r"Toy\.valid\.inter: missing"),
    "two names": (lambda f: (f / "Other.test.inter").touch(), "expected one <Name>.test.inter, found Other, Toy"),
    "text header": (_write("Toy.text", "item0\ta\n"), r"Toy\.text: header is .*add the header"),
    "feature rows": (
        lambda f: np.save(f / "Toy.text_x.npy", np.ones((5, 2), np.float32)),
        r"Toy\.text_x\.npy: 5 rows for 6 items",
    ),
    "feature type": (lambda f: np.save(f / "Toy.text_x.npy", np.ones((6, 2), int)), "holds int64, expected float16"),
    "feature shape": (
        lambda f: np.save(f / "Toy.text_x.npy", np.ones(6)),
        r"has shape \[6\], expected \[rows, width\]",
    ),
    "feature pickle": (
        lambda f: np.save(f / "Toy.text_x.npy", np.array([{}], object), allow_pickle=True),
        r"Toy\.text_x\.npy: not a readable \.npy",
    ),
    "truncated npy": (
        lambda f: (np.save(f / "Toy.text_x.npy", np.ones((6, 2))), _truncate("Toy.text_x.npy", 3)(f)),
        r"Toy\.text_x\.npy: not a readable \.npy",
    ),
    "two features": (
        lambda f: [np.save(f / f"Toy.text_{x}.npy", np.ones((6, 2))) for x in "ab"],
        "both Toy.text_a.npy and Toy.text_b.npy are features for text",
    ),
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_unisrec_names_what_is_wrong(name: str, tmp_path: Path) -> None:
    write_unisrec(tmp_path, SEQUENCES)
    write_index(tmp_path, 3, 6)
    unisrec_content(str(tmp_path), {}, {})
    spoil, message = BAD_FOLDERS[name]
    spoil(tmp_path)
    with pytest.raises(InputError, match=message):
        unisrec_content(str(tmp_path), {}, {})


RECBOLE = "user_id:token\trating:float\titem_id:token\ttimestamp:float\n"


def test_recbole_reads_its_three_columns(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text(RECBOLE + 'u1\t5\tNA\t1.3e9\nu2\t1\t\t7\nu"3\t1\ti\t-2\n')
    for path in (tmp_path, tmp_path / "x.inter"):
        table = read_recbole(str(path))
        assert table.column("user").to_pylist() == ["u1", "u2", 'u"3']
        assert table.column("item").to_pylist() == ["NA", None, "i"]
        assert table.column("timestamp").to_pylist() == [1_300_000_000, 7, -2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + "\n", "lacks timestamp:float"),
        (RECBOLE + "u\t1\ti\n", "row 2 has 3 columns, expected 4"),
        (RECBOLE + "u\t1\ti\tnoon\n", r"column timestamp:float is 'noon' in row 1 of 1"),
        (RECBOLE + "u\t1\ti\t1.5\n", "use whole seconds or milliseconds"),
    ],
)
def test_recbole_names_what_is_wrong(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text(content)
    with pytest.raises(InputError, match=message):
        read_recbole(str(tmp_path))


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_table_reads_three_kinds_of_file(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"x.{suffix}"
    rows = [{"who": "a,b", "what": 7, "when": 5}, {"who": "c", "what": 8, "when": 6}]
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif suffix == "csv":
        file.write_text('who,what,when\n"a,b",7,5\nc,8,6\n')
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = read_table(str(file), "who", "what", "when")
    assert table.to_pydict() == {"user": ["a,b", "c"], "item": ["7", "8"], "timestamp": [5, 6]}
    with pytest.raises(InputError, match=r"no column 'user' among 'who', 'what', 'when'; name it with --user-column"):
        read_table(str(file))
    file.write_bytes(file.read_bytes()[:-3] if suffix != "csv" else b"who,what,when\n1,2\n")
    with pytest.raises(InputError, match=rf"x\.{suffix}: "):
        read_table(str(file), "who", "what", "when")


def test_table_refuses_other_files_and_types(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_table(str(tmp_path / "none.csv"))
    (tmp_path / "x.xls").touch()
    with pytest.raises(InputError, match=r"suffix '\.xls' is not"):
        read_table(str(tmp_path / "x.xls"))
    pq.write_table(pa.table({"user": [1.5], "item": ["a"], "timestamp": [1]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="column user is double, ids must be text or whole numbers"):
        read_table(str(tmp_path / "x.parquet"))


@pytest.mark.parametrize(
    ("name", "counts", "train_rows", "present"),
    [
        ("scientific", (8_442, 4_385, 59_427), 34_101, {"image": 1_585, "text": 4_385}),
        ("baby", (19_445, 7_050, 160_792), 102_457, {}),
    ],
)
def test_real_data(
    name: str, counts: tuple[int, int, int], train_rows: int, present: dict[str, int], tmp_path: Path
) -> None:
    if not (REAL / name).is_dir():
        pytest.skip(f"no real data at {REAL / name}")
    dataset = write_dataset(str(tmp_path / name), unisrec_content(str(REAL / name), {}, {}))
    dataset.validate()
    assert (dataset.num_users, dataset.num_items, dataset.num_interactions) == counts
    assert int((dataset.train_end - 1).sum()) == train_rows
    assert {modality: int(dataset.presence(modality).sum()) for modality in dataset.modalities} == present
    assert dataset.manifest["source"]["users_with_cut_history"] == 0
