"""The whole job in one process: resumed, killed, with repeated items, lists, and broken images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputError
from data.encoding.encode import EncodingJob, Outcome, encode_items
from data.encoding.item_table import ItemTable
from data.encoding.request import EncoderSpec
from data.encoding.tfidf import TfIdf
from data.encoding.workers import Places
from tests.data.encoding import tiny_models
from tests.data.encoding.pictures import broken_pictures, grey_pictures, sound_pictures, write_pictures
from tests.data.encoding.test_tfidf import texts
from tests.fingerprints import fingerprints
from tests.packages import ROOT

pytestmark = pytest.mark.long


def write_table(file: Path, count: int = 90) -> Path:
    pq.write_table(pa.table({"item": [f"i{n}" for n in range(count)], "text": texts(count)}), file)
    return file


def job_for(table: Path, output: Path, **options: Any) -> EncodingJob:
    columns = {"path": str(table), "modality": "text", "item_column": "item", "columns": ("text",)}
    columns |= options.pop("columns", {})
    spec = {"name": "tfidf", "modality": columns["modality"], "width": 4} | options.pop("spec", {})
    defaults = {"table": ItemTable(**columns), "spec": EncoderSpec(**spec), "output": output, "rows_per_part": 10}
    return EncodingJob(**defaults | options)


def encode(table: Path, output: Path, overwrite: bool = False, **options: Any) -> Outcome:
    return encode_items(job_for(table, output, **options), Places(), overwrite=overwrite, track=lambda loop, *_: loop)


def found_in(folder: Path) -> tuple[list[str], np.ndarray, list[dict[str, Any]]]:
    items, problems = (pq.read_table(folder / name) for name in ("items.parquet", "problems.parquet"))
    return items.column("item").to_pylist(), np.load(folder / "vectors.npy"), problems.to_pylist()


def test_items_keep_the_order_of_the_table_and_nothing_else_is_left(tmp_path: Path) -> None:
    outcome = encode(write_table(tmp_path / "t.parquet"), tmp_path / "out")
    items, vectors, problems = found_in(tmp_path / "out")
    assert items == [f"i{n}" for n in range(90)]
    assert vectors.shape == (90, 4)
    assert vectors.any(axis=1).all()
    assert not problems
    assert outcome.num_parts == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "t.parquet"]
    small = encode(tmp_path / "t.parquet", tmp_path / "small", dtype="float16").manifest
    assert small["dtype"] == "float16"
    np.testing.assert_array_equal(np.load(tmp_path / "small/vectors.npy"), vectors.astype(np.float16))


def test_several_rows_and_lists_of_an_item_are_averaged_or_kept(tmp_path: Path) -> None:
    values = texts(60)
    content = {
        "item": ["a", "b", "c", "a", "d", "b", "e"],
        "text": [values[0:2], [], values[2:3], values[3:6], [None, values[6]], [values[7], ""], [None]],
    }
    pq.write_table(pa.table(content), tmp_path / "t.parquet")
    of_item = {"a": [0, 1, 3, 4, 5], "b": [7], "c": [2], "d": [6], "e": []}
    spec = {"width": 2}
    encode(tmp_path / "t.parquet", tmp_path / "mean", rows_per_part=2, spec=spec)
    encode(tmp_path / "t.parquet", tmp_path / "list", rows_per_part=3, spec=spec, several="list")
    single = pa.table({"item": [str(n) for n in range(8)], "text": values[:8]})
    pq.write_table(single, tmp_path / "single.parquet")
    items, means, problems = found_in(tmp_path / "mean")
    assert items == list(of_item)
    assert [(row["item"], row["value"], row["reason"]) for row in problems] == [
        ("b", 0, "no text"), ("d", 0, "no text"), ("b", 1, "no text"), ("e", 0, "no text"),
    ]  # fmt: skip
    offsets, every = (np.load(tmp_path / "list" / name) for name in ("list_offsets.npy", "list_vectors.npy"))
    assert np.diff(offsets).tolist() == [len(rows) for rows in of_item.values()]
    encoder = TfIdf(EncoderSpec(name="tfidf", modality="text", fitted=str(tmp_path / "list/tfidf.safetensors")))
    expected = encoder.encode(values[:8])[0]
    np.testing.assert_array_equal(every, expected[[row for rows in of_item.values() for row in rows]])
    listed = np.load(tmp_path / "list/vectors.npy")
    for number, rows in enumerate(of_item.values()):
        mean = expected[rows].mean(axis=0) if rows else np.zeros(2)
        np.testing.assert_allclose(listed[number], mean, atol=1e-6)
        np.testing.assert_allclose(means[number], mean, atol=1e-6)
    assert json.loads((tmp_path / "mean/manifest.json").read_text())["num_values"] == 8


def test_finished_parts_are_kept_and_damaged_ones_done_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_table(tmp_path / "t.parquet")
    encode(tmp_path / "t.parquet", tmp_path / "whole")
    job = job_for(tmp_path / "t.parquet", tmp_path / "out")
    _stop_after(job, 5)
    kept = sorted((job.work / "encoded").iterdir())
    assert len(kept) == 5
    damaged = kept[2].read_bytes()
    kept[2].write_bytes(damaged[:300] + b"x" + damaged[301:])
    before = [file.stat().st_mtime_ns for file in kept]
    assert encode(tmp_path / "t.parquet", tmp_path / "out").num_kept == 4
    assert "continuing: 4 of 9 parts are there" in capsys.readouterr().out
    assert before
    assert fingerprints(tmp_path / "out") == fingerprints(tmp_path / "whole")


def test_parts_of_other_settings_and_texts_are_not_taken(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet")
    job = job_for(tmp_path / "t.parquet", tmp_path / "out")
    _stop_after(job, 9)
    assert encode(tmp_path / "t.parquet", tmp_path / "out", spec={"normalize": True}).num_kept == 0
    _stop_after(job_for(tmp_path / "t.parquet", tmp_path / "next"), 9)
    table = pq.read_table(tmp_path / "t.parquet").to_pydict()
    table["text"][15] += " extraordinary"
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    # A word of a single text is not learned, so TF-IDF is the same, and one part has another text.
    assert encode(tmp_path / "t.parquet", tmp_path / "next").num_kept == 8
    _stop_after(job_for(tmp_path / "t.parquet", tmp_path / "last"), 9)
    table["text"][85] += " extraordinary"
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    assert encode(tmp_path / "t.parquet", tmp_path / "last").num_kept == 0


def _stop_after(job: EncodingJob, parts: int) -> None:
    """Run a job that is interrupted after some parts."""

    def track(loop: Any, _total: int, label: str) -> Any:
        for number, turn in enumerate(loop, start=1):
            yield turn
            if label == "parts" and number == parts:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_items(job, Places(), overwrite=False, track=track)


def test_only_the_items_that_are_asked_for(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet")
    wanted = [f"i{n}" for n in range(0, 90, 3)]
    encode(tmp_path / "t.parquet", tmp_path / "out", only=pa.array([*wanted, "absent"], pa.large_string()))
    assert found_in(tmp_path / "out")[0] == wanted


def test_only_new_items_are_encoded(tmp_path: Path) -> None:
    write_table(tmp_path / "whole.parquet")
    rows = pq.read_table(tmp_path / "whole.parquet").to_pydict()
    rows["text"][7] = None  # no vector, so it is tried again
    pq.write_table(pa.table(rows).slice(0, 60), tmp_path / "old.parquet")
    encode(tmp_path / "old.parquet", tmp_path / "old")
    before = fingerprints(tmp_path / "old")
    outcome = encode(tmp_path / "whole.parquet", tmp_path / "new", reuse=tmp_path / "old")
    assert fingerprints(tmp_path / "old") == before
    assert outcome.num_parts == 4  # 31 items
    items, vectors, problems = found_in(tmp_path / "new")
    assert items == [*(f"i{n}" for n in range(60) if n != 7), "i7", *(f"i{n}" for n in range(60, 90))]
    assert not problems
    np.testing.assert_array_equal(vectors[:59], np.delete(np.load(tmp_path / "old/vectors.npy"), 7, axis=0))
    encoder = TfIdf(EncoderSpec(name="tfidf", modality="text", fitted=str(tmp_path / "old/tfidf.safetensors")))
    texts_of = dict(
        zip(rows["item"], pq.read_table(tmp_path / "whole.parquet").column("text").to_pylist(), strict=True)
    )
    np.testing.assert_array_equal(vectors, encoder.encode([texts_of[item] for item in items])[0])
    # Nothing new at all: the folder is written anew.
    again = encode(tmp_path / "whole.parquet", tmp_path / "again", reuse=tmp_path / "new")
    assert again.num_parts == 0
    np.testing.assert_array_equal(np.load(tmp_path / "again/vectors.npy"), vectors)
    with pytest.raises(
        InputError,
        match=r"are by tfidf, revision ([0-9a-f]{12}), and these would be by tfidf, revision \1: "
        "normalized is False there and True here; use the same",
    ):
        encode(tmp_path / "whole.parquet", tmp_path / "other", reuse=tmp_path / "old", spec={"normalize": True})
    with pytest.raises(InputError, match="only means of the same dtype can be reused"):
        encode(tmp_path / "whole.parquet", tmp_path / "other", reuse=tmp_path / "old", dtype="float16")


def test_what_differs_from_what_would_be_reused_is_named(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="the extra encode is not installed")
    write_table(tmp_path / "t.parquet", 30)
    bert = {"name": str(tiny_models.bert(tmp_path / "bert"))}
    encode(tmp_path / "t.parquet", tmp_path / "old", spec=bert)
    encode(tmp_path / "t.parquet", tmp_path / "words")
    before = fingerprints(tmp_path)

    def refused(reuse: str, message: str, **options: Any) -> None:
        with pytest.raises(InputError, match=message):
            encode(tmp_path / "t.parquet", tmp_path / "new", reuse=tmp_path / reuse, **options)
        assert fingerprints(tmp_path) == before

    refused("old", "old: its vectors are by bert, revision [0-9a-f]{12}, and these would be by tfidf; use the same")
    refused("words", "words: its vectors are by tfidf, revision [0-9a-f]{12}, and these would be by /", spec=bert)
    refused("words", "its vectors have 4 values, and --width is 3", spec={"width": 3})
    refused("old", "pooling is mean there and cls here; use the same", spec=bert | {"pooling": "cls"})
    both = "pooling is mean there and cls here; max_length is 32 there and 8 here; use the same"
    refused("old", both, spec=bert | {"pooling": "cls", "max_length": 8})
    other = {"name": str(tiny_models.bert(tmp_path / "other", seed=1))}
    before = fingerprints(tmp_path)
    refused("old", "revision is ([0-9a-f]{12}) there and [0-9a-f]{12} here; use the same", spec=other)


def test_outputs_that_are_something_else_are_never_replaced(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    for overwrite in (False, True):
        with pytest.raises(InputError, match="holds no encoded items, so it is never replaced"):
            encode(tmp_path / "t.parquet", tmp_path / "other", overwrite)
    encode(tmp_path / "t.parquet", tmp_path / "out")
    before = fingerprints(tmp_path)
    with pytest.raises(InputError, match="exists; name another folder or add --overwrite"):
        encode(tmp_path / "t.parquet", tmp_path / "out")
    assert fingerprints(tmp_path) == before
    encode(tmp_path / "t.parquet", tmp_path / "out", overwrite=True, spec={"width": 3})
    assert found_in(tmp_path / "out")[1].shape == (90, 3)


def test_texts_of_which_none_has_a_vector_are_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item": ["a"], "image": ["none.png"]}), tmp_path / "t.parquet")
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra encode is not installed")
    with pytest.raises(
        InputError, match=r"none of the images has a vector: item 'a' \('none.png' in .*\): no such file"
    ):
        encode(
            tmp_path / "t.parquet",
            tmp_path / "out",
            columns={"modality": "image", "columns": ("image",)},
            spec={"name": "efficientnet-lite0"},
            image_folder=tmp_path,
        )
    assert not (tmp_path / "out").exists()
    pq.write_table(pa.table({"item": ["a", "b"], "image": [None, ""]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"^all 2 images are empty; check --image-column, and --image-folder$"):
        encode(
            tmp_path / "t.parquet",
            tmp_path / "out",
            columns={"modality": "image", "columns": ("image",)},
            spec={"name": "efficientnet-lite0"},
            image_folder=tmp_path,
        )


@pytest.mark.parametrize("where", ["files", "table"])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_broken_images_are_listed_and_others_are_as_without_them(tmp_path: Path, kind: str, where: str) -> None:
    pytest.importorskip("transformers", reason="the extra encode is not installed")
    from PIL import Image

    from tests.data.encoding.pictures import encoded

    model = getattr(tiny_models, kind)(tmp_path / "model")
    one = encoded(Image.new("RGB", (1, 1), "red"), "PNG")
    sound = {**sound_pictures(), **grey_pictures(), "one.png": one}
    broken = {name: content for name, (content, _) in broken_pictures().items()}
    write_pictures(tmp_path / "images", sound | broken)
    names = [name for pair in zip(sound, [*broken, *[None] * 20], strict=False) for name in pair]

    def encoded_names(chosen: list[str | None], output: str) -> tuple[list[str], np.ndarray, list[dict[str, Any]]]:
        content = [(sound | broken).get(name or "") for name in chosen] if where == "table" else chosen
        table = pa.table({"item": [f"{n} {name}" for n, name in enumerate(chosen)], "image": content})
        pq.write_table(table, tmp_path / f"{output}.parquet", row_group_size=5)
        encode(
            tmp_path / f"{output}.parquet",
            tmp_path / output,
            rows_per_part=4,
            columns={"modality": "image", "columns": ("image",)},
            spec={"name": str(model)},
            image_folder=tmp_path / "images",
        )
        return found_in(tmp_path / output)

    items, vectors, problems = encoded_names(names, "all")
    _, alone, none = encoded_names(list(sound), "sound")
    assert not none
    assert alone.any(axis=1).all()
    is_sound = np.array([name in sound for name in names])
    np.testing.assert_allclose(vectors[is_sound], alone, atol=1e-5)
    assert not vectors[~is_sound].any()
    assert [row["item"] for row in problems] == [item for item, fine in zip(items, is_sound, strict=True) if not fine]
    for row, name in zip(problems, [name for name in names if name not in sound], strict=True):
        empty = name is None or (where == "table" and name == "empty.png")
        expected = "no image" if empty else broken_pictures()[name][1]
        assert row["reason"].startswith(expected), row
        assert row["source"] == (
            name or "" if where == "files" else f"{len(broken[name])} bytes" if not empty else row["source"]
        )
    # The pattern looks alike in every lossless format.
    places = {name: number for number, name in enumerate(sound)}
    np.testing.assert_allclose(alone[places["plain.bmp"]], alone[places["plain.png"]], atol=1e-5)


@pytest.mark.parametrize("kind", ["tfidf", pytest.param("bert", marks=pytest.mark.slow)])
def test_a_killed_encoding_ends_as_an_undisturbed_one(kind: str, tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", 240)
    name = "tfidf"
    if kind == "bert":
        pytest.importorskip("sentence_transformers", reason="the extra encode is not installed")
        name = str(tiny_models.bert(tmp_path / "bert"))
    command = [
        sys.executable, str(ROOT / "jobs/encode_items.py"), "--input", str(tmp_path / "t.parquet"), "--encoder", name,
        "--rows-per-part", "4", "--output", str(tmp_path / "out"), *(["--width", "4"] if kind == "tfidf" else []),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while len(list((tmp_path / "out.parts").glob("encoded/*.parquet"))) < 5:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    options = {"spec": {"name": name, "width": 4 if kind == "tfidf" else 128}, "rows_per_part": 4}
    kept = encode(tmp_path / "t.parquet", tmp_path / "out", **options).num_kept
    assert 4 <= kept < 60  # a part is done when both of its files are there
    encode(tmp_path / "t.parquet", tmp_path / "straight", **options)
    assert fingerprints(tmp_path / "out") == fingerprints(tmp_path / "straight")
