"""Describes MIND: a click in an impression is an interaction; the titles are in news.tsv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data.formats.delimited_layout import DelimitedLayout
from data.formats.described import KnownItems, described_source, layout_of
from data.formats.file_source import FileSource
from data.formats.input_files import InputFile, find_files
from data.formats.known_files import check_interactions
from data.formats.layouts import Layout
from data.formats.mind_layout import ITEM, TIME, USER, MindLayout
from data.formats.read_options import ReadOptions
from data.formats.text_blocks import data_suffix, is_compressed
from data.formats.times import TimeRule

_BEHAVIORS, _NEWS = "behaviors.tsv", "news.tsv"
_NEWS_COLUMNS = (
    "news", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities",
)  # fmt: skip
_TIME = TimeRule(format="%m/%d/%Y %I:%M:%S %p")
_READS = f"--format mind reads files called {_BEHAVIORS}"


def mind_source(paths: Sequence[str], options: ReadOptions) -> FileSource:
    """Return the source of MIND's files of impressions, such as those of the folders for training and validation.

    The history of an impression has no times and is not read.

    Raises:
        InputError: a file does not exist or is something else, or options contradict each other.
    """
    files = find_files(paths, lambda name: _plain(name) if _plain(name) == _BEHAVIORS else None, _READS)
    for file in files:
        check_interactions(file, "mind")
    return described_source(
        "mind",
        paths,
        options,
        files=files,
        layout=MindLayout(),
        columns={"user": USER, "item": ITEM, "timestamp": TIME},
        parameters=options.given(),
        time=_TIME,
        known=KnownItems(
            files=_news(files),
            looked_for=tuple(map(str, _beside(files))),
            layout=_news_layout,
            id_column="news",
            title_columns=("title",),
        ),
    )


def _plain(name: str) -> str:
    return Path(name).stem if is_compressed(name) else Path(name).name


def _news(files: Sequence[InputFile]) -> tuple[InputFile, ...]:
    return tuple(InputFile(name=str(path)) for path in _beside(files) if path.is_file())


def _beside(files: Sequence[InputFile]) -> list[Path]:
    return list(dict.fromkeys(Path(file.name).parent / _NEWS for file in files if file.remote is None))


def _news_layout(name: str) -> Layout:
    if data_suffix(name) != ".tsv":
        return layout_of(name, ReadOptions(), of_items=True)
    return DelimitedLayout(delimiter="\t", quoted=False, names=_NEWS_COLUMNS)
