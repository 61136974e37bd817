"""Describes folders of MMRec: NAME.inter with its own split, and features whose row r belongs to item number r."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from contracts.errors import InputError
from contracts.modalities import is_modality_name
from data.formats.delimited import check_separator
from data.formats.delimited_layout import DelimitedLayout
from data.formats.described import KnownItems, described_source, layout_of
from data.formats.file_source import FileSource
from data.formats.input_files import InputFile, find_files
from data.formats.known_files import check_interactions
from data.formats.layouts import Layout
from data.formats.read_options import ReadOptions
from data.formats.text_blocks import data_suffix
from data.layout import local_path
from storage.uris import is_uri

_COLUMNS = {"user": "userID", "item": "itemID", "split": "x_label"}
_TIME = "timestamp"
_META = "meta-"
_FEATURES = "_feat"
_READS = "--format mmrec reads .inter files"
_NEXT_MOVE = "MMRec's files have userID, itemID and x_label; use --format table for others"


def mmrec_source(paths: Sequence[str], options: ReadOptions) -> FileSource:
    """Return the source of MMRec's interactions, with the split of x_label (0: training, 1: validation, 2: test).

    A file without timestamps is read in the order of its rows, for MMRec itself does not read timestamps. Texts come
    from meta-NAME.csv, which MMRec's preprocessing writes, if it is in the folder.

    Raises:
        InputError: there is not one .inter file, it is something else, or options contradict each other.
    """
    file = _inter_file(paths)
    layout = DelimitedLayout(delimiter="\t", quoted=False)
    header = layout.column_names(file.name, file.local())
    check_separator(file.name, header, [*_COLUMNS.values()])
    check_interactions(file, "mmrec")
    return described_source(
        "mmrec",
        paths,
        options,
        files=(file,),
        layout=layout,
        columns=_COLUMNS | ({"timestamp": _TIME} if _TIME in header else {}),
        parameters=options.given(),
        next_move=_NEXT_MOVE,
        known=KnownItems(
            files=tuple(InputFile(name=str(path)) for path in _metadata(file) if path.is_file()),
            looked_for=tuple(map(str, _metadata(file))),
            layout=_items_layout,
            id_column="itemID",
            title_columns=("title",) if options.items is None or _META in Path(options.items).name else (),
        ),
    )


def mmrec_features(paths: Sequence[str]) -> dict[str, str]:
    """Return the feature file of each modality beside the interactions: image_feat.npy, text_feat.npy and others.

    Other .npy files, such as user_graph_dict.npy, are left alone.

    Raises:
        InputError: see `mmrec_source`.
    """
    file = _inter_file(paths)
    if file.remote is not None:
        return {}
    found = sorted(Path(file.name).parent.glob(f"*{_FEATURES}.npy"))
    names = {path.stem.removesuffix(_FEATURES): str(path) for path in found}
    return {name: path for name, path in names.items() if is_modality_name(name)}


def _inter_file(paths: Sequence[str]) -> InputFile:
    if len(paths) > 1:
        raise InputError(f"--input: --format mmrec reads one folder or file, not {len(paths)}; name one")
    files = find_files(paths, lambda name: ".inter" if data_suffix(name) == ".inter" else None, _READS)
    if len(files) > 1:
        names = ", ".join(Path(file.name).name for file in files)
        raise InputError(f"{paths[0]}: expected one .inter file, found {names}; name the file itself as --input")
    return files[0]


def _metadata(file: InputFile) -> tuple[Path, ...]:
    """Return the path of the titles of a local file, which need not exist."""
    if file.remote is not None:
        return ()
    path = Path(file.name)
    return (path.parent / f"{_META}{path.name.partition('.')[0]}.csv",)


def _items_layout(name: str) -> Layout:
    """Return the layout of a file of items; i_id_mapping.csv is separated by tabs in spite of its name."""
    if is_uri(name) or Path(name).name != "i_id_mapping.csv":
        return layout_of(name, ReadOptions(), of_items=True)
    with local_path(name).open("rb") as stream:
        separator = "\t" if b"\t" in stream.readline() else ","
    return DelimitedLayout(delimiter=separator, quoted=separator == ",")
