"""Words as features: what is alike, what is missing, what is refused; the job that writes them."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from configs.errors import InputError
from data.dataset import Dataset, write_dataset
from data.lexical import lexical_features
from jobs import text_features
from jobs.prepare_data import prepare
from tests.data.small_files import small_content, write_index, write_unisrec

TOOLS = ["Sanding roll, 80 grit. Porter", "SANDING ROLL 120 grit - porter", "epoxy glue, clear", "Glue clear; epoxy!"]


def cosines(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def test_items_that_share_rare_words_are_alike():
    vectors = lexical_features(TOOLS, 2)
    assert vectors.dtype == np.float32
    assert vectors.shape == (4, 2)
    alike = cosines(vectors)
    assert min(alike[0, 1], alike[2, 3]) > 0.99
    assert abs(alike[:2, 2:]).max() < 1e-5


def test_products_are_those_of_the_weighed_words_where_the_width_is_theirs():
    """By hand: words and pairs that two items have, log counts, smoothed idf, rows of length 1."""
    texts = ["a b a b", "b c c", "a c", "d d a b", "d c"]
    known = ["a", "b", "c", "d", "a b"]
    counts = np.array([[2, 2, 0, 0, 2], [0, 1, 2, 0, 0], [1, 0, 1, 0, 0], [1, 1, 0, 2, 1], [0, 0, 1, 1, 0]], float)
    have = (counts > 0).sum(0)
    kept = have <= 2  # at most half of five items
    assert [word for word, keep in zip(known, kept, strict=True) if keep] == ["d", "a b"]
    weights = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0) * (np.log(6 / (1 + have)) + 1)
    weights = weights[:, kept]
    lengths = np.linalg.norm(weights, axis=1, keepdims=True)
    unit = np.divide(weights, lengths, out=np.zeros_like(weights), where=lengths > 0)
    vectors = lexical_features(texts, 1)
    left, values, _ = np.linalg.svd(unit)
    best = np.outer(left[:, 0], left[:, 0]) * values[0] ** 2
    np.testing.assert_allclose(vectors @ vectors.T, best, atol=1e-6)
    assert not vectors[1].any()  # "b c c" has no word left


def test_scripts_missing_texts_and_repeats():
    texts = ["砂紙 ロール", "砂紙 ロール", None, "", "клей прозрачный", "клей прозрачный", "alone"]
    vectors = lexical_features(texts, 2)
    assert (~vectors.any(axis=1)).tolist() == [False, False, True, True, False, False, True]
    assert cosines(vectors[[0, 1, 4, 5]])[0, 1] > 0.99
    assert np.array_equal(vectors, lexical_features(texts, 2))


@pytest.mark.parametrize(
    ("texts", "width", "message"),
    [(["a", "b", "c"], 1, "no two items share a word"), ([None, None], 1, "no two items"), (TOOLS, 4, "below 4")],
)
def test_what_has_no_such_vectors_is_refused(texts, width, message):
    with pytest.raises(InputError, match=message):
        lexical_features(texts, width)


def test_the_job_writes_what_prepare_data_reads(tmp_path):
    sequences = [[0, 1, 2, 3], [3, 2, 1, 0]]
    folder = write_unisrec(tmp_path / "raw", sequences)
    write_index(folder, 2, 4)
    rows = "".join(f"item{item}\t{text}\n" for item, text in enumerate([*TOOLS[:3], "Epoxy glue"]))
    (folder / "Toy.text").write_text("item_id:token\ttext:token_seq\n" + rows)
    prepare("unisrec", str(tmp_path / "dataset"), str(folder))
    words = str(tmp_path / "words.parquet")
    command = ["--dataset", str(tmp_path / "dataset"), "--output", words, "--width", "2"]
    done = CliRunner().invoke(text_features.main, command)
    assert done.exit_code == 0, done.output
    assert "wrote" in done.output
    assert pq.read_schema(words).names == ["item", "vector"]
    prepare("unisrec", str(tmp_path / "with"), str(folder), features={"lexical": words})
    given = Dataset.open(str(tmp_path / "with"))
    texts = given.item_texts().to_pylist()
    np.testing.assert_array_equal(given.features("lexical"), lexical_features(texts, 2))
    assert "exists" in CliRunner().invoke(text_features.main, command).output
    assert CliRunner().invoke(text_features.main, [*command, "--overwrite"]).exit_code == 0
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_missing_text_is_a_missing_row(tmp_path):
    told = pa.array(["red glue", None, "red tape", "glue gun", "", "paper"], pa.large_string())
    content = replace(small_content(), item_texts=told)
    dataset = write_dataset(str(tmp_path / "dataset"), content)
    texts = dataset.item_texts().to_pylist()
    words = str(tmp_path / "words.parquet")
    command = ["--dataset", str(tmp_path / "dataset"), "--output", words, "--width", "1"]
    done = CliRunner().invoke(text_features.main, command)
    expected = lexical_features(texts, 1).any(axis=1)
    assert done.exit_code == 0, done.output
    assert expected.tolist() == [True, False, True, True, False, False]
    names = np.array(dataset.item_source_ids().to_pylist())
    assert pq.read_table(words)["item"].to_pylist() == names[expected].tolist()
