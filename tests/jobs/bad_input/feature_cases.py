"""Cases of bad input for jobs/prepare_data.py: features, options and outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.jobs.bad_input.case import Case, Group
from tests.jobs.bad_input.damage import archive, array, cut, link, put, replace, table, write

_OUT = "--output {here}/out"
_CSV = f"prepare_data --format table --input {{here}}/raw.csv {_OUT}"
_PARQUET = f"prepare_data --format table --input {{here}}/raw.parquet {_OUT}"
_RECBOLE = f"prepare_data --format recbole --input {{here}}/Toy.inter {_OUT}"
_UNISREC = f"prepare_data --format unisrec --input {{here}}/unisrec {_OUT}"
_NPY = f"{_PARQUET} --features text={{here}}/text.npy --feature-ids text={{here}}/text.ids"
_VECTORS = f"{_PARQUET} --features text={{here}}/text.parquet"


def _two_arrays(here: Path) -> None:
    np.savez(here / "text.npz", rows=np.ones((30, 6)), ids=np.arange(30))


FEATURES = Group(
    "jobs/prepare_data.py: features",
    (
        Case("a feature that is NaN", _NPY, put("text.npy", (7, 3), np.nan)),
        Case("a feature beyond float32", _NPY, array("text.npy", lambda x: x.astype(np.float64) * 1e300)),
        Case("integers for features", _NPY, array("text.npy", lambda x: x.astype(np.int64))),
        Case("Python objects for features", _NPY, array("text.npy", lambda x: np.array([{}] * len(x)))),
        Case("one dimension for two", _NPY, array("text.npy", lambda x: x[:, 0])),
        Case("no features at all", _NPY, array("text.npy", lambda x: x[:, :0])),
        Case("a truncated .npy file", _NPY, cut("text.npy", 0.7)),
        Case("text called .npy", _NPY, write("text.npy", "1 2 3\n")),
        Case("a .npz archive called .npy", _NPY, archive("text.npy")),
        Case("an archive of two arrays", _NPY.replace("text.npy", "text.npz"), _two_arrays),
        Case("text called .npz", _NPY.replace("text.npy", "text.npz"), write("text.npz", "1 2 3\n")),
        Case("an empty .npy file", _NPY, write("text.npy", "")),
        Case("more ids than rows", _NPY, write("text.ids", "i1\n" * 31)),
        Case("an id twice", _NPY, replace("text.ids", "i7\n", "i8\n")),
        Case("an empty line among the ids", _NPY, replace("text.ids", "i7\n", "\n")),
        Case("ids that are not there", _NPY.replace("text.ids", "none.ids")),
        Case("ids of other items", _NPY, replace("text.ids", "i", "x", -1)),
        Case("ids that are not text", _NPY, write("text.ids", b"\xff\xfe\n" * 30)),
        Case("a .npy file without ids", f"{_PARQUET} --features text={{here}}/text.npy"),
        Case("ids without features", f"{_PARQUET} --feature-ids text={{here}}/text.ids"),
        Case("ragged vectors", _VECTORS, table("text.parquet", item=["i1", "i2"], vector=[[1.0, 2.0], [3.0]])),
        Case(
            "a null in a vector", _VECTORS, table("text.parquet", item=["i1", "i2"], vector=[[1.0, 2.0], [3.0, None]])
        ),
        Case("vectors of integers", _VECTORS, table("text.parquet", item=["i1"], vector=[[1, 2]])),
        Case(
            "empty vectors", _VECTORS, table("text.parquet", item=["i1"], vector=pa.array([[]], pa.list_(pa.float32())))
        ),
        Case("no column of vectors", _VECTORS, table("text.parquet", item=["i1"], embedding=[[1.0]])),
        Case("an item that is null", _VECTORS, table("text.parquet", item=["i1", None], vector=[[1.0], [2.0]])),
        Case("an item that is a fraction", _VECTORS, table("text.parquet", item=[1.5], vector=[[1.0]])),
        Case(
            "a feature file that is not there",
            f"{_PARQUET} --features text={{here}}/none.npy --feature-ids text={{here}}/text.ids",
        ),
        Case("features in an unknown format", f"{_PARQUET} --features text={{here}}/raw.csv"),
        Case("a modality name that leaves the folder", f"{_PARQUET} --features ../../text={{here}}/text.parquet"),
        Case("a modality called like the item IDs", f"{_PARQUET} --features id={{here}}/text.parquet"),
        Case("two modalities that differ by case alone", f"{_VECTORS} --features Text={{here}}/text.parquet"),
        Case("a modality without a file", f"{_PARQUET} --features text="),
        Case("a modality twice", f"{_VECTORS} --features text={{here}}/text.npy"),
        Case(
            "features with too few rows",
            f"{_UNISREC} --features text={{here}}/text.npy",
            array("text.npy", lambda x: x[:9]),
        ),
    ),
)

OPTIONS = Group(
    "jobs/prepare_data.py: options",
    (
        Case("an unknown format", "prepare_data --format excel --output {here}/out"),
        Case("an option of another format", f"{_RECBOLE} --user-column who"),
        Case("a k-core of zero", f"{_CSV} --min-user-interactions 0"),
        Case("a maximum history of zero", f"{_CSV} --max-history 0"),
        Case("a column that is not there", f"{_CSV} --user-column customer"),
        Case("one column for two roles", f"{_CSV} --user-column item"),
        Case("a fraction above 1", f"{_CSV} --split global-time --valid-fraction 0.9 --test-fraction 1.5"),
        Case("a fraction that is NaN", f"{_CSV} --split global-time --valid-fraction nan"),
        Case("validation after test", f"{_CSV} --split global-time --valid-from 9 --test-from 5"),
        Case("everything lies after the split", f"{_CSV} --split global-time --valid-from 5 --test-from 9"),
        Case("a time of the split without --split global-time", f"{_CSV} --valid-from 9"),
        Case("no input", f"prepare_data --format table {_OUT}"),
        Case("an input for a synthetic dataset", f"prepare_data --format synthetic --input {{here}}/raw.csv {_OUT}"),
        Case("an engine for a synthetic dataset", f"prepare_data --format synthetic --engine ray {_OUT}"),
        Case("an unknown engine", f"{_CSV} --engine dask"),
        Case("a catalogue of one item", f"prepare_data --format synthetic --num-items 1 {_OUT}"),
        Case("a catalogue with no users", f"prepare_data --format synthetic --num-users 0 {_OUT}"),
        Case("a negative seed", f"prepare_data --format synthetic --seed -1 {_OUT}"),
        Case("a number that is a word", f"prepare_data --format synthetic --num-items many {_OUT}"),
    ),
)

OUTPUTS = Group(
    "jobs/prepare_data.py: outputs",
    (
        Case("the output exists", _CSV.replace("/out", "/other")),
        Case("the output is a file", _CSV.replace("/out", "/text.npy")),
        Case("the output holds other things", f"{_CSV.replace('/out', '/unisrec')} --overwrite"),
        Case(
            "the old dataset holds a file of the user's",
            f"{_CSV.replace('/out', '/other')} --overwrite",
            write("other/notes.txt", "mine"),
        ),
        Case("the output is the input's folder", f"{_UNISREC.replace('/out', '/unisrec')}"),
        Case("the output is a link", f"{_CSV} --overwrite", link("out", "other")),
        Case("the output lies in a file", _CSV.replace("/out", "/text.npy/out")),
        Case("the output is a whole bucket", _CSV.replace("{here}/out", "s3://bucket")),
        Case("the output has no name", _CSV.replace("{here}/out", "''")),
    ),
)

GROUPS = (FEATURES, OPTIONS, OUTPUTS)
