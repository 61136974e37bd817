"""Describes Amazon Reviews 2023 and 2018: reviews as JSON lines, ratings as CSV, and the metadata beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data.formats.amazon_files import SPLIT_COLUMN, check_item_first, split_files
from data.formats.delimited_layout import DelimitedLayout
from data.formats.described import KnownItems, described_source, file_kind, layout_of
from data.formats.file_source import FileSource
from data.formats.input_files import InputFile, find_files
from data.formats.known_files import check_interactions
from data.formats.layouts import Layout
from data.formats.read_options import ReadOptions

_META = "meta_"
_KINDS = (".jsonl", ".csv")
_2023 = {"user": "user_id", "item": "parent_asin", "timestamp": "timestamp"}
_2018_REVIEWS = {"user": "reviewerID", "item": "asin", "timestamp": "unixReviewTime"}
_2018_RATINGS = {"user": "user", "item": "item", "timestamp": "timestamp"}
_2018_NAMES = ("item", "user", "rating", "timestamp")


def amazon2023_source(paths: Sequence[str], options: ReadOptions) -> FileSource:
    """Return the source of reviews or ratings of Amazon Reviews 2023.

    Files called NAME.train.csv, NAME.valid.csv and NAME.test.csv keep that split and are read in this order. Other
    columns, such as `history`, are ignored.

    Raises:
        InputError: a file does not exist or is something else, a part of a split is missing, or options contradict
            each other.
    """
    found = _interaction_files("amazon2023", paths)
    layout = _layout(found[0].name, None)
    files, columns = split_files(found), dict(_2023)
    if files != found:
        columns["split"] = SPLIT_COLUMN
    metadata, looked_for = _metadata(files)
    return described_source(
        "amazon2023",
        paths,
        options,
        files=files,
        layout=layout,
        columns=columns,
        parameters=options.given(),
        next_move="--format amazon2023 reads user_id, parent_asin and timestamp; use --format table for others",
        known=KnownItems(files=metadata, looked_for=looked_for, id_column="parent_asin", title_columns=("title",)),
    )


def amazon2018_source(paths: Sequence[str], options: ReadOptions) -> FileSource:
    """Return the source of reviews (JSON lines) or ratings (CSV without a header) of Amazon 2018.

    Titles that hold a page's script instead of a title are left out.

    Raises:
        InputError: a file does not exist or is something else, or options contradict each other.
    """
    files = _interaction_files("amazon2018", paths)
    layout = _layout(files[0].name, _2018_NAMES)
    if isinstance(layout, DelimitedLayout):
        for file in files:
            check_item_first(file)
    metadata, looked_for = _metadata(files)
    return described_source(
        "amazon2018",
        paths,
        options,
        files=files,
        layout=layout,
        columns=_2018_RATINGS if isinstance(layout, DelimitedLayout) else _2018_REVIEWS,
        parameters=options.given(),
        next_move="--format amazon2018 reads reviewerID, asin and unixReviewTime; use --format table for others",
        known=KnownItems(
            files=metadata, looked_for=looked_for, id_column="asin", title_columns=("title",), broken="getTime("
        ),
    )


def _interaction_files(preset: str, paths: Sequence[str]) -> tuple[InputFile, ...]:
    def kind_of(name: str) -> str | None:
        kind = file_kind(name)
        return kind if kind in _KINDS and not Path(name).name.startswith(_META) else None

    reads = f"--format {preset} reads .jsonl, .json and .csv files of reviews or ratings, also with .gz"
    files = find_files(paths, kind_of, reads)
    for file in files:
        check_interactions(file, preset)
    return files


def _layout(name: str, names: tuple[str, ...] | None) -> Layout:
    """Return the layout of reviews or ratings. Ratings have no quotes, so that files can be divided."""
    if file_kind(name) == ".csv":
        return DelimitedLayout(delimiter=",", quoted=False, names=names)
    return layout_of(name, ReadOptions())


def _metadata(files: Sequence[InputFile]) -> tuple[tuple[InputFile, ...], tuple[str, ...]]:
    """Return the local files meta_NAME beside NAME, NAME_5, NAME.train or reviews_NAME_5, and the names looked for."""
    found: dict[str, InputFile] = {}
    looked_for: dict[str, None] = {}
    for file in files:
        if file.remote is None:
            path = Path(file.name)
            name = path.name.partition(".")[0].removesuffix("_5").removeprefix("reviews_").removeprefix("ratings_")
            looked_for[str(path.parent / f"{_META}{name}.json(l)")] = None
            beside = sorted(path.parent.glob(f"{_META}{name}.*"))
            found |= {str(meta): InputFile(name=str(meta)) for meta in beside if file_kind(meta.name) == ".jsonl"}
    return tuple(found.values()), tuple(looked_for)
