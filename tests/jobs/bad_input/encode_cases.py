"""Cases of bad input for jobs/encode_items.py, and for the folders that it writes."""

from __future__ import annotations

from pathlib import Path

from data.encoding.encode import EncodingJob, encode_items
from data.encoding.item_table import ItemTable
from data.encoding.request import EncoderSpec
from data.encoding.workers import Places
from tests.jobs.bad_input.case import Case, Group
from tests.jobs.bad_input.damage import both, cut, table, write

_OUT = "--output {here}/out"
_ITEMS = "item,text,image\n" + "".join(f"i{n},red saw {n % 3},i{n}.png\n" for n in range(30))
_TEXT = f"encode_items --input {{here}}/items.csv --encoder tfidf --width 2 {_OUT}"
_JSON = _TEXT.replace(".csv", ".jsonl")
_MIXED = '{"item": 1, "text": "a"}\n{"item": "i2", "text": "b"}\n'
_MISSING = f"{_TEXT} --dataset {{here}}/dataset --only-missing"
_IMAGE = f"encode_items --input {{here}}/items.csv --encoder efficientnet-lite0 {_OUT}"
_REUSE = f"{_IMAGE} --reuse {{here}}/encoded"
_FOLDER = f"prepare_data --format table --input {{here}}/raw.parquet {_OUT} --features text={{here}}/encoded"


def _by(encoder: str) -> str:
    """Return the command that encodes texts by another encoder."""
    return _TEXT.replace("tfidf --width 2", encoder)


def _pointer(here: Path) -> None:
    """Write a model of which Git has fetched the small files alone."""
    write("items.csv", _ITEMS)(here)
    write("model/config.json", "{}")(here)
    write("model/model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")(here)


def _encoded(here: Path) -> None:
    """Write a folder of encoded items."""
    write("items.csv", _ITEMS)(here)
    items = ItemTable(path=str(here / "items.csv"), modality="text", item_column="item", columns=("text",))
    spec = EncoderSpec(name="tfidf", modality="text", width=2)
    job = EncodingJob(table=items, spec=spec, output=here / "encoded")
    encode_items(job, Places(), overwrite=False, track=lambda loop, *_: loop)


ENCODING = Group(
    "jobs/encode_items.py",
    (
        Case("no table", f"encode_items --encoder tfidf {_OUT}"),
        Case("a table that is not there", _TEXT),
        Case("missing vectors of no dataset", f"{_TEXT} --only-missing text", write("items.csv", _ITEMS)),
        Case("missing vectors of no modality", f"{_MISSING} audio", write("items.csv", _ITEMS)),
        Case("no vectors are missing", f"{_MISSING} text", write("items.csv", _ITEMS)),
        Case(
            "a quote in a text that never closes",
            _TEXT,
            write("items.csv", 'item,text\ni1,Red\ni2,"5 inch\ni3,Blue\n'),
        ),
        Case("a table of another format", _TEXT.replace(".csv", ".xlsx"), write("items.xlsx", "1")),
        Case("no such column of texts", f"{_TEXT} --text-column title", write("items.csv", _ITEMS)),
        Case("no such column of ids", f"{_TEXT} --item-column asin", write("items.csv", _ITEMS)),
        Case("an item without an id", _TEXT, write("items.csv", "item,text\ni1,a\n,b\n")),
        Case("a row with a column too many", _TEXT, write("items.csv", "item,text\ni1,a,b\n")),
        Case("texts that are not UTF-8", _TEXT, write("items.csv", b"item,text\ni1,\xff\xfe\n")),
        Case(
            "numbers for texts",
            _TEXT.replace("items.csv", "items.parquet"),
            table("items.parquet", item=["i1"], text=[1.5]),
        ),
        Case("a table without rows", _TEXT, write("items.csv", "item,text\n")),
        Case("texts without words", _TEXT, write("items.csv", "item,text\ni1,!\ni2,\n")),
        Case("texts that are all empty", _TEXT, write("items.csv", "item,text\ni1,\ni2,\ni3,\n")),
        Case("a line that is cut", _JSON, write("items.jsonl", '{"item": "i1", "text": "a"}\n{"item": "i2", "te')),
        Case("an id that is a fraction", _JSON, write("items.jsonl", '{"item": 1.0, "text": "a"}\n')),
        Case("a text as an id among numbers", _JSON, write("items.jsonl", _MIXED)),
        Case("a graph for a dataset", _MISSING.replace("/dataset", "/graph") + " text", write("items.csv", _ITEMS)),
        Case("an encoder that does not exist", _by("word2vec"), write("items.csv", _ITEMS)),
        Case("a folder without a model", _by("{here}/unisrec"), write("items.csv", _ITEMS)),
        Case("weights that Git has not fetched", _by("{here}/model"), _pointer),
        Case("texts for an encoder of images", f"{_IMAGE} --modality text", write("items.csv", _ITEMS)),
        Case("a width for an encoder of images", f"{_IMAGE} --width 2", write("items.csv", _ITEMS)),
        Case("TF-IDF of another width to reuse", f"{_TEXT} --reuse {{here}}/encoded --width 3", _encoded),
        Case("vectors of another encoder to reuse", _REUSE, _encoded),
        Case("pooling for TF-IDF", f"{_TEXT} --pooling cls", write("items.csv", _ITEMS)),
        Case(
            "addresses of images",
            _IMAGE,
            write("items.csv", _ITEMS.replace("i7.png", "https://example.org/i7.png")),
        ),
        Case("images of which none is there", _IMAGE, write("items.csv", _ITEMS)),
        Case(
            "a folder of images that is not there", f"{_IMAGE} --image-folder {{here}}/img", write("items.csv", _ITEMS)
        ),
        Case("texts and images at once", f"{_TEXT} --text-column text --image-column image"),
        Case("a dataset without texts", f"encode_items --dataset {{here}}/dataset --encoder tfidf {_OUT}"),
        Case("an output that is something else", _TEXT.replace("/out", "/dataset"), write("items.csv", _ITEMS)),
        Case("an output that is there", _TEXT.replace("/out", "/encoded"), _encoded),
        Case("a table at a URI", _TEXT.replace("{here}/items.csv", "s3://bucket/items.csv")),
    ),
)

FOLDERS = Group(
    "jobs/prepare_data.py: folders of jobs/encode_items.py",
    (
        Case("a folder that is not finished", _FOLDER, write("encoded/vectors.npy", "")),
        Case("a dataset for features", _FOLDER.replace("encoded", "dataset")),
        Case("a graph for features", _FOLDER.replace("encoded", "graph")),
        Case("ids for a folder", f"{_FOLDER} --feature-ids text={{here}}/text.ids", _encoded),
        Case("vectors that are cut", _FOLDER, both(_encoded, cut("encoded/vectors.npy", 0.7))),
        Case("a manifest that is cut", _FOLDER, both(_encoded, cut("encoded/manifest.json", 0.5))),
    ),
)

GROUPS = (ENCODING, FOLDERS)
