"""Describes MovieLens: 100K (u.data, u.item), 1M and 10M (ratings.dat, movies.dat), 20M and later (CSV)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from contracts.errors import InputError
from data.formats.delimited_layout import DelimitedLayout
from data.formats.described import KnownItems, described_source
from data.formats.file_source import FileSource
from data.formats.input_files import InputFile, find_files
from data.formats.known_files import check_interactions
from data.formats.read_options import ReadOptions
from data.formats.text_blocks import data_suffix, is_compressed, open_bytes

_CSV = {"user": "userId", "item": "movieId", "timestamp": "timestamp"}
_NAMED = {"user": "user", "item": "item", "timestamp": "timestamp"}
_NAMES = ("user", "item", "rating", "timestamp")
_RATINGS = {
    ".data": (DelimitedLayout(delimiter="\t", quoted=False, names=_NAMES), _NAMED),
    ".dat": (DelimitedLayout(delimiter="::", quoted=False, names=_NAMES), _NAMED),
    ".csv": (DelimitedLayout(delimiter=",", quoted=False), _CSV),
}
_MOVIES = {".data": "u.item", ".dat": "movies.dat", ".csv": "movies.csv"}
_FILES = ("u.data", "ratings.dat", "ratings.csv")
_READS = f"--format movielens reads {', '.join(_FILES)}"
_100K_COLUMNS = ("movieId", "title", "release_date", "video_date", "url", *(f"genre_{place}" for place in range(19)))


def movielens_source(paths: Sequence[str], options: ReadOptions) -> FileSource:
    """Return the source of a MovieLens folder or its file of ratings.

    Raises:
        InputError: the folder has none or several of the files, a file is something else, or options contradict each
            other.
    """
    if len(paths) > 1:
        raise InputError(f"--input: --format movielens reads one folder or file, not {len(paths)}; name one")
    files = find_files(paths, lambda name: _kind(Path(name).name), _READS)
    if len(files) > 1:
        names = ", ".join(Path(file.name).name for file in files)
        raise InputError(f"{paths[0]}: has several files of ratings ({names}); name one as --input")
    file = files[0]
    check_interactions(file, "movielens")
    suffix = data_suffix(file.name)
    if suffix not in _RATINGS:
        raise InputError(f"{file.name}: has suffix {suffix!r}; {_READS}")
    layout, columns = _RATINGS[suffix]
    return described_source(
        "movielens",
        paths,
        options,
        files=files,
        layout=layout,
        columns=columns,
        parameters=options.given(),
        next_move="--format movielens reads userId, movieId and timestamp; use --format table for others",
        known=KnownItems(
            files=_beside(file, _MOVIES[suffix]),
            looked_for=() if file.remote else (str(Path(file.name).parent / _MOVIES[suffix]),),
            layout=_movies_layout,
            id_column="movieId",
            title_columns=("title",),
        ),
    )


def _kind(name: str) -> str | None:
    plain = Path(name).stem if is_compressed(name) else name
    return plain if plain in _FILES else None


def _beside(file: InputFile, name: str) -> tuple[InputFile, ...]:
    movies = Path(file.name).parent / name
    return (InputFile(name=str(movies)),) if file.remote is None and movies.is_file() else ()


def _movies_layout(name: str) -> DelimitedLayout | None:
    """Return the layout of a file of movies; None: it is not called as one of MovieLens without a header."""
    match Path(name).name:
        case "u.item":
            return DelimitedLayout(delimiter="|", quoted=False, names=_100K_COLUMNS, encoding=_encoding(name))
        case "movies.dat":
            names = ("movieId", "title", "genres")
            return DelimitedLayout(delimiter="::", quoted=False, names=names, encoding=_encoding(name))
    return None


def _encoding(name: str) -> str:
    """Return the encoding of a file of movies: 100K and 1M are in Latin-1, 10M is in UTF-8."""
    with open_bytes(Path(name)) as stream:
        try:
            stream.read().decode("utf-8")
        except UnicodeDecodeError:
            return "latin-1"
    return "utf-8"
