"""The formats of raw interactions: each is a name for a description of files that `FileSource` reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from data.formats.amazon import amazon2018_source, amazon2023_source
from data.formats.file_source import FileSource
from data.formats.lists import lists_source
from data.formats.mind import mind_source
from data.formats.mmrec import mmrec_features, mmrec_source
from data.formats.movielens import movielens_source
from data.formats.read_options import OPTION_NAMES, ReadOptions
from data.formats.recbole import recbole_source
from data.formats.table import table_source

ITEM_OPTIONS = frozenset({"items", "item_delimiter", "item_names", "item_id_column", "title_column", "item_columns"})
TIME_OPTIONS = frozenset({"time_unit", "time_format"})


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A format.

    Attributes:
        name: its name as `--format`.
        summary: what it reads, in a line.
        options: the options of `ReadOptions` that it takes.
        source: returns the source for paths and options; it raises InputError where they are wrong.
        features: if row r of this format's feature files belongs to the item whose id is the number r: returns the
            file of each modality that is found beside the interactions. None: feature files have no such rule.
        defaults: values of options for the k-core that differ from those of other formats.
    """

    name: str
    summary: str
    options: frozenset[str]
    source: Callable[[Sequence[str], ReadOptions], FileSource]
    features: Callable[[Sequence[str]], Mapping[str, str]] | None = None
    defaults: Mapping[str, int] = field(default_factory=dict)


_ALL = (
    Preset(
        name="table",
        summary=".parquet, .csv, .tsv or .jsonl files; the columns are named by options",
        options=OPTION_NAMES,
        source=table_source,
    ),
    Preset(
        name="recbole",
        summary="RecBole's .inter files, with titles from .item",
        options=ITEM_OPTIONS | TIME_OPTIONS | {"keep"},
        source=recbole_source,
    ),
    Preset(
        name="lists",
        summary="lines of a user and the user's items, oldest first",
        options=ITEM_OPTIONS,
        source=lists_source,
    ),
    Preset(
        name="amazon2023",
        summary="Amazon Reviews 2023: reviews (JSON lines) or ratings (CSV), with titles from meta_NAME.jsonl",
        options=ITEM_OPTIONS | {"keep"},
        source=amazon2023_source,
    ),
    Preset(
        name="amazon2018",
        summary="Amazon 2018: reviews (JSON lines) or ratings (CSV without a header), with titles from meta_NAME.json",
        options=ITEM_OPTIONS | {"keep"},
        source=amazon2018_source,
    ),
    Preset(
        name="movielens",
        summary="MovieLens 100K, 1M, 10M, 20M, 25M, 32M and latest, with titles",
        options=ITEM_OPTIONS | {"keep"},
        source=movielens_source,
    ),
    Preset(
        name="mmrec",
        summary="MMRec's .inter file with its own split, and its feature files",
        options=ITEM_OPTIONS | {"keep"},
        source=mmrec_source,
        features=mmrec_features,
        defaults={"min_user_interactions": 1, "min_item_interactions": 1},
    ),
    Preset(
        name="mind",
        summary="MIND's clicks in behaviors.tsv, with titles from news.tsv",
        options=ITEM_OPTIONS,
        source=mind_source,
    ),
)
PRESETS = {preset.name: preset for preset in _ALL}
