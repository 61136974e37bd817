"""Named formats: files in the exact shape of each release give the right users, items, order, split and titles."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from contracts.errors import InputError
from data.dataset import Dataset
from data.formats.source import all_blocks
from jobs import prepare_data
from jobs.prepare_data import prepare
from tests.data import release_files as release
from tests.data.read_rows import rows_with_nulls, source_of
from tests.data.release_files import ANN, BOB, MOVIE_ORDER, MOVIES, NEWS, ORDER, TITLES, X, Y, Z
from tests.data.small_files import REAL, sequences_of

SHARED = Path(os.environ.get("MDSREC_FIXTURES", REAL.parent / "fixtures")).parent
ALL = {"min_user_interactions": 1, "min_item_interactions": 1}


def prepared(kind: str, folder: Path, path: Any, **options: Any) -> Dataset:
    dataset = prepare(kind, str(folder.with_name(f"{folder.name}-dataset")), path, overwrite=True, **(ALL | options))
    dataset.validate()
    return dataset


def histories(dataset: Dataset) -> dict[str, list[str]]:
    users = pq.read_table(Path(dataset.path) / "users.parquet").column("source_id").to_pylist()
    items = pq.read_table(Path(dataset.path) / "items.parquet").column("source_id").to_pylist()
    return {user: [items[i] for i in items_] for user, items_ in zip(users, sequences_of(dataset), strict=True)}


def texts(dataset: Dataset) -> dict[str, str | None]:
    table = pq.read_table(Path(dataset.path) / "items.parquet")
    if "text" not in table.column_names:
        return {}
    return dict(zip(*(table.column(name).to_pylist() for name in ("source_id", "text")), strict=True))


def times(dataset: Dataset) -> list[int]:
    assert dataset.timestamps is not None
    return dataset.timestamps.tolist()


def test_amazon2023_reviews_with_their_metadata(tmp_path: Path) -> None:
    folder = release.amazon2023(tmp_path)
    dataset = prepared("amazon2023", tmp_path, str(folder))
    assert histories(dataset) == ORDER
    assert texts(dataset) == {X: 'Howard\'s 5" "Cast" & Iron', Y: None, Z: "Yucheng Ring Light"} == TITLES
    assert dataset.manifest["source"]["timestamp_unit"] == "ms"
    assert dataset.manifest["dropped"]["described_items_without_interactions"] == 1
    assert dataset.manifest["source"]["items"] == [str(folder / "meta_All_Beauty.jsonl.gz")]
    named = prepared("amazon2023", tmp_path, str(folder / "All_Beauty.jsonl.gz"), title_column=["store", "categories"])
    assert texts(named) == {X: "Howard Products Beauty Hair", Y: None, Z: "Howard Products Beauty Hair"}
    kept = prepared("amazon2023", tmp_path, str(folder), keep="rating >= 4", item_columns="store")
    assert histories(kept) == {ANN: [X, Y, Z], BOB: [Y]}
    assert pq.read_table(Path(kept.path) / "items.parquet").column("store").to_pylist().count("Howard Products") == 2


@pytest.mark.parametrize("with_history", [False, True])
def test_amazon2023_ratings_keep_the_split_of_their_files(with_history: bool, tmp_path: Path) -> None:
    folder = release.amazon2023_ratings(tmp_path, with_history=with_history)
    dataset = prepared("amazon2023", tmp_path, str(folder))
    assert {user: sorted(items) for user, items in histories(dataset).items()} == {
        u: sorted(i) for u, i in ORDER.items()
    }
    assert histories(dataset) == ORDER
    assert dataset.manifest["split"] == {
        "method": "given", "given_by": "the source's files", "users_not_in_order_of_time": 0,
    }  # fmt: skip
    assert (dataset.train_end.tolist(), dataset.valid_end.tolist()) == ([1, 0], [2, 1])
    assert texts(dataset) == {}
    other = prepared("amazon2023", tmp_path, str(folder), split="leave-one-out")
    assert other.manifest["split"] == {"method": "leave-one-out"}
    refused(
        "amazon2023",
        folder / "All_Beauty.test.csv",
        r"without \S*All_Beauty.train.csv and \S*All_Beauty.valid.csv; name",
    )
    names = {"user_column": "user_id", "item_column": "parent_asin"}
    one = prepared("table", tmp_path, str(folder / "All_Beauty.test.csv"), **names)
    assert histories(one) == {ANN: [Z], BOB: [X]}


@pytest.mark.parametrize("make", [release.amazon2018_ratings, release.amazon2018_reviews])
def test_amazon2018_ratings_and_reviews_with_their_metadata(make: Callable[[Path], Path], tmp_path: Path) -> None:
    dataset = prepared("amazon2018", tmp_path, str(make(tmp_path)))
    assert histories(dataset) == ORDER
    assert texts(dataset) == TITLES  # the script in place of a title is left out
    assert times(dataset)[:3] == [1588615855, 1588615999, 1588687728]
    assert dataset.manifest["dropped"]["duplicates"] == (make is release.amazon2018_reviews)
    assert dataset.manifest["source"]["timestamp_unit"] == "s"


@pytest.mark.parametrize(
    ("make", "titles"),
    [
        (release.movielens_100k, MOVIES),
        (release.movielens_dat, MOVIES),
        (lambda folder: release.movielens_dat(folder, "utf-8"), MOVIES),
        (release.movielens_csv, MOVIES),
    ],
    ids=["100k", "1m", "10m", "20m"],
)
def test_movielens_of_every_size(make: Callable[[Path], Path], titles: dict[str, str], tmp_path: Path) -> None:
    dataset = prepared("movielens", tmp_path, str(make(tmp_path)))
    assert histories(dataset) == MOVIE_ORDER
    assert texts(dataset) == titles
    assert dataset.manifest["source"]["timestamp_unit"] == "s"
    ratings = next(tmp_path / name for name in ("u.data", "ratings.dat", "ratings.csv") if (tmp_path / name).exists())
    kept = prepared("movielens", tmp_path, str(ratings), keep="rating >= 4")
    assert histories(kept) == {"1": ["1", "2", "3"], "2": ["2"]}
    packed = tmp_path / "packed" / f"{ratings.name}.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(ratings.read_bytes()))
    assert histories(prepared("movielens", tmp_path, str(packed.parent))) == MOVIE_ORDER


def test_mmrec_keeps_its_split_and_finds_its_features(tmp_path: Path) -> None:
    folder = release.mmrec(tmp_path)
    dataset = prepare(
        "mmrec", str(tmp_path.with_name(f"{tmp_path.name}-own")), str(folder)
    )  # no k-core: MMRec has its own
    dataset.validate()
    # Training items in order of time, then validation, then test, although item 2 is later than both.
    assert histories(dataset) == {"0": ["1", "2", "3", "0"], "1": ["1", "0", "2"]}
    assert (dataset.train_end.tolist(), dataset.valid_end.tolist()) == ([2, 2], [3, 2])
    assert dataset.timestamps is None
    assert dataset.manifest["split"]["users_not_in_order_of_time"] == 1
    assert dataset.manifest["dropped"]["feature_rows_without_item_image"] == 1
    items = pq.read_table(Path(dataset.path) / "items.parquet").column("source_id").to_pylist()
    expected = np.load(folder / "image_feat.npy")[[int(item) for item in items]]
    np.testing.assert_array_equal(np.asarray(dataset.features("image")), expected)
    assert sorted(dataset.manifest["modalities"]) == ["image", "text"]
    by_time = prepared("mmrec", tmp_path, str(folder / "baby.inter"), split="leave-one-out")
    assert histories(by_time) == {"0": ["3", "0", "1", "2"], "1": ["1", "0", "2"]}
    assert by_time.timestamps is not None
    one = prepared("mmrec", tmp_path, str(folder), features={"look": str(folder / "image_feat.npy")})
    np.testing.assert_array_equal(np.asarray(one.features("look")), expected)
    mapped = {"items": str(folder / "i_id_mapping.csv"), "item_columns": "asin"}
    columns = pq.read_table(Path(prepared("mmrec", tmp_path, str(folder), **mapped).path) / "items.parquet")
    assert columns.column("asin").to_pylist() == [
        f"B00000000{item}" for item in columns.column("source_id").to_pylist()
    ]
    (folder / "meta-baby.csv").write_text('itemID,asin,title\n1,B000000001,"Bib, ""soft"""\n')
    assert texts(prepared("mmrec", tmp_path, str(folder)))["1"] == 'Bib, "soft"'


def test_every_item_of_mmrec_needs_a_row_of_features(tmp_path: Path) -> None:
    folder = release.mmrec(tmp_path)
    np.save(folder / "text_feat.npy", np.ones((3, 2), np.float32))
    refused("mmrec", folder / "baby.inter", "text_feat.npy: has rows 0 to 2 and so none for item '3'")


def test_mmrec_without_timestamps_is_in_the_order_of_its_rows(tmp_path: Path) -> None:
    rows = [(0, 2, 0), (0, 0, 2), (0, 1, 0), (0, 3, 1)]
    lines = ["userID\titemID\tx_label", *("\t".join(map(str, row)) for row in rows)]
    (tmp_path / "x.inter").write_text("\n".join(lines))
    dataset = prepared("mmrec", tmp_path, str(tmp_path))
    assert histories(dataset) == {"0": ["2", "1", "3", "0"]}


def test_mind_clicks_are_interactions(tmp_path: Path) -> None:
    folder = release.mind(tmp_path)
    dataset = prepared("mind", tmp_path, str(folder))
    assert histories(dataset) == {"U2": ["N2", "N1"], "U1": ["N40", "N1", "N3"]}
    assert texts(dataset) == NEWS
    assert times(dataset) == [1573516860, 1573822923, 1573463157, 1573463158, 1573463158]
    both = [str(folder / "MINDsmall_train"), str(folder / "MINDsmall_dev")]
    dataset = prepared("mind", tmp_path, both, title_column=["title", "abstract"])
    assert histories(dataset)["U1"] == ["N40", "N1", "N3"]
    assert texts(dataset)["N40"] == 'Best PS5 games "Quoted abstract'
    (folder / "unlabelled.tsv").write_text("1\tU1\t11/11/2019 9:05:58 AM\t\tN1-1\n" * 3 + "2\tU2\t\t\tN1-0 N2\n")
    refused("mind", folder / "unlabelled.tsv", "impressions has 'N2' in line 4, expected news with -1")
    with pytest.raises(InputError, match="impressions has 'N2' in line 4, "):
        rows_with_nulls(source_of("mind", str(folder / "unlabelled.tsv")), 1 << 20, 10)
    source = source_of("mind", str(folder / "MINDsmall_train"))
    parts = [block.rows for block in all_blocks(source, source.chunks(30), 10)]
    assert len(source.chunks(30)) == 4
    assert pa.concat_tables(parts).column("item").to_pylist() == ["N1", "N3", "N2", "N40"]


def test_recbole_has_titles_of_its_items_file(tmp_path: Path) -> None:
    folder = release.recbole(tmp_path)
    dataset = prepared("recbole", tmp_path, str(folder))
    assert histories(dataset) == MOVIE_ORDER
    assert texts(dataset) == MOVIES
    named = prepared(
        "recbole", tmp_path, str(folder), title_column="class:token_seq", item_columns="release_year:token"
    )
    assert texts(named) == dict.fromkeys(MOVIES, "Animation Comedy")
    assert "release_year:token" in pq.read_schema(Path(named.path) / "items.parquet").names
    (folder / "ml-100k.item").write_text((folder / "ml-100k.item").read_text().replace("movie_title", "words"))
    assert texts(prepared("recbole", tmp_path, str(folder))) == {}
    assert texts(prepared("recbole", tmp_path, str(folder), title_column="words:token_seq")) == MOVIES
    (folder / "ml-100k.item").write_text((folder / "ml-100k.item").read_text().replace("words", "movie_title"))
    (folder / "ml-100k.item").rename(folder / "other.item")
    assert texts(prepared("recbole", tmp_path, str(folder))) == {}
    assert texts(prepared("recbole", tmp_path, str(folder), items=str(folder / "other.item"))) == MOVIES


@pytest.mark.parametrize(
    ("name", "counts"), [("beauty", (22_363, 12_101, 198_502)), ("toys", (19_412, 11_924, 167_597))]
)
def test_real_lists_with_key_words(name: str, counts: tuple[int, int, int], tmp_path: Path) -> None:
    folder = SHARED / "data" / name
    if not folder.exists():
        pytest.skip(f"{folder} is not here")
    words = {"items": str(folder / "items.tsv"), "item_names": "item,words", "title_column": "words"}
    dataset = prepared("lists", tmp_path, str(folder / "sequences.txt"), **words)
    assert (dataset.num_users, dataset.num_items, dataset.num_interactions) == counts
    described = dict(line.split("\t") for line in (folder / "items.tsv").read_text().splitlines())
    assert texts(dataset) == {item: words or None for item, words in described.items()}


def refused(kind: str, path: Path, match: str, **options: Any) -> None:
    with pytest.raises(InputError, match=match):
        prepare(kind, str(path.parent / "_refused"), str(path), **(ALL | options))


def test_a_wrong_preset_is_named(tmp_path: Path) -> None:
    for name in ("amazon2023", "amazon2023_ratings", "amazon2018_ratings", "amazon2018_reviews", "movielens_100k"):
        (tmp_path / name).mkdir()
        getattr(release, name)(tmp_path / name)
    for name in ("movielens_dat", "movielens_csv", "mmrec", "mind", "recbole"):
        (tmp_path / name).mkdir()
        getattr(release, name)(tmp_path / name)
    (tmp_path / "lists.txt").write_text("1 1 2 3\n2 2 1\n")
    files = {
        "amazon2023/All_Beauty.jsonl.gz": "amazon2023",
        "amazon2023_ratings/All_Beauty.train.csv": "amazon2023",
        "amazon2018_ratings/All_Beauty.csv": "amazon2018",
        "amazon2018_reviews/All_Beauty_5.json.gz": "amazon2018",
        "movielens_100k/u.data": "movielens",
        "movielens_dat/ratings.dat": "movielens",
        "movielens_csv/ratings.csv": "movielens",
        "mmrec/baby.inter": "mmrec",
        "mind/MINDsmall_train/behaviors.tsv": "mind",
    }
    for file, right in files.items():
        for wrong in {"amazon2023", "amazon2018", "movielens", "mind"} - {right}:
            refused(
                wrong, tmp_path / file, f"looks like .*, which --format {wrong} does not read; use --format {right}$"
            )
        if "meta" not in file:
            refused("lists", tmp_path / "lists.txt", "descriptions of items", items=str(tmp_path / file))
    refused("mmrec", tmp_path / "recbole/ml-100k.inter", "looks like interactions of RecBole.*use --format recbole")
    described = {
        "amazon2023/meta_All_Beauty.jsonl.gz": "amazon2023",
        "amazon2018_ratings/meta_All_Beauty.json.gz": "amazon2018",
        "movielens_100k/u.item": "movielens",
        "movielens_dat/movies.dat": "movielens",
        "movielens_csv/movies.csv": "movielens",
        "mind/MINDsmall_train/news.tsv": "mind",
    }
    for file, right in described.items():
        for kind in {"amazon2023", "amazon2018", "movielens", "mind"}:
            refused(kind, tmp_path / file, f"give it as --items, .* with --format {right}$")


def test_files_of_2014_are_read_as_the_messages_say(tmp_path: Path) -> None:
    release.amazon2018_ratings(tmp_path)
    metadata = release.amazon2014_metadata(tmp_path / "meta_All_Beauty.json.gz")
    with pytest.raises(
        InputError, match=r"Python's notation .* cannot be read safely; convert it once with: zcat"
    ) as refusal:
        prepare("amazon2018", str(tmp_path / "_refused"), str(tmp_path / "All_Beauty.csv"))
    code = str(refusal.value).partition("python -c '")[2].partition("'")[0]
    lines = subprocess.run(
        [sys.executable, "-c", code], input=gzip.decompress(metadata.read_bytes()), capture_output=True
    )
    metadata.unlink()
    (tmp_path / "meta_All_Beauty.jsonl").write_bytes(lines.stdout)
    assert texts(prepared("amazon2018", tmp_path, str(tmp_path))) == {X: None, Y: "Bobby's", Z: None}
    rows = [line.split(",") for line in (tmp_path / "All_Beauty.csv").read_text().splitlines()]
    (tmp_path / "ratings.csv").write_text("".join(f"{u},{i},{rating},{time}\n" for i, u, rating, time in rows))
    with pytest.raises(InputError, match=r"the user first.*use --format table --columns") as refusal:
        prepare("amazon2018", str(tmp_path / "_refused"), str(tmp_path / "ratings.csv"))
    columns = str(refusal.value).rpartition(" ")[2]
    assert histories(prepared("table", tmp_path, str(tmp_path / "ratings.csv"), columns=columns)) == ORDER


ZEROS = {"1": ["0111", "0112", "0113"], "2": ["0112", "0111"]}
DOCUMENTED: dict[str, tuple[Callable[[Path], object], dict[str, list[str]], int]] = {
    "amazon2023": (release.amazon2023, ORDER, 2),
    "amazon2023 ratings": (lambda here: release.amazon2023_ratings(below(here, "FOLDER")), ORDER, 0),
    "amazon2018": (release.amazon2018_reviews, ORDER, 3),
    "amazon2018 ratings": (release.amazon2018_ratings, {ANN: [X, Y, Z], BOB: [Y]}, 2),
    "movielens": (lambda here: release.movielens_dat(below(here, "ml-1m")), MOVIE_ORDER, 3),
    "mmrec": (lambda here: release.mmrec(below(here, "baby")), {"0": ["1", "2", "3", "0"], "1": ["1", "0", "2"]}, 0),
    "mind": (release.mind, {"U2": ["N2", "N1"], "U1": ["N40", "N1", "N3"]}, 3),
    "recbole": (lambda here: release.recbole(below(here, "ml-100k")), MOVIE_ORDER, 3),
    "lists": (release.lists, MOVIE_ORDER, 2),
    "MicroLens": (release.microlens, MOVIE_ORDER, 3),
    "PixelRec": (release.pixelrec, MOVIE_ORDER, 1),
    "NineRec": (release.ninerec, MOVIE_ORDER, 0),
    "Yambda": (release.yambda, MOVIE_ORDER, 0),
    "H&M": (release.h_and_m, {f"0000{user}": items for user, items in ZEROS.items()}, 1),
    "RetailRocket": (release.retailrocket, MOVIE_ORDER, 0),
    "KuaiRec": (release.kuairec, MOVIE_ORDER, 0),
    "Yelp": (release.yelp, {f"u{user}": [f"b{item}" for item in items] for user, items in MOVIE_ORDER.items()}, 2),
}


def below(here: Path, name: str) -> Path:
    (here / name).mkdir()
    return here / name


def documented_commands() -> dict[str, list[str]]:
    """The commands of docs/data.md that a comment with a dataset's name stands before."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text().replace("\\\n", " ")
    found = re.findall(r"^# ([^\n]+)\npython jobs/prepare_data\.py ([^\n]+)$", page, flags=re.M)
    return {name: shlex.split(arguments) for name, arguments in found}


def test_every_documented_dataset_is_tested() -> None:
    assert list(documented_commands()) == list(DOCUMENTED)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_commands(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, expected, num_texts = DOCUMENTED[name]
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    minimums = ["--min-user-interactions", "1", "--min-item-interactions", "1"]
    result = CliRunner().invoke(prepare_data.main, [*documented_commands()[name], *minimums])
    assert result.exit_code == 0, result.output
    dataset = Dataset.open("DATASET")
    assert histories(dataset) == expected
    assert sum(text is not None for text in texts(dataset).values()) == num_texts


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("amazon2023", release.amazon2023),
        ("amazon2023", release.amazon2023_ratings),
        ("amazon2018", release.amazon2018_ratings),
        ("movielens", release.movielens_100k),
        ("movielens", release.movielens_dat),
        ("movielens", release.movielens_csv),
        ("mmrec", release.mmrec),
        ("mind", release.mind),
        ("recbole", release.recbole),
    ],
)
def test_other_processes_read_the_same_rows_in_chunks(kind: str, make: Callable[[Path], Path], tmp_path: Path) -> None:
    source = source_of(kind, str(make(tmp_path)))
    copied = pickle.loads(pickle.dumps(source))  # noqa: S301
    assert rows_with_nulls(copied, 30, 10).combine_chunks() == rows_with_nulls(source).combine_chunks()
    described, again = source.item_columns(), copied.item_columns()
    assert described == again
    assert (described is None) == (kind == "mmrec" or make is release.amazon2023_ratings)


def test_further_columns_are_enough_where_a_format_reads_titles(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\nu,1,5,1500000000\nu,2,5,1500000001\n")
    (tmp_path / "years.csv").write_text("movieId,year\n1,1999\n2,2001\n")
    source = source_of("movielens", str(tmp_path), items=str(tmp_path / "years.csv"), item_columns="year")
    table = source.item_columns()
    assert table is not None
    assert table.to_pydict() == {"item": ["1", "2"], "year": ["1999", "2001"]}
    with pytest.raises(
        InputError, match=r"years\.csv: no column 'title' among .*; name the column of the items' texts"
    ):
        source_of("movielens", str(tmp_path), items=str(tmp_path / "years.csv"))
