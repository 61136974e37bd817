"""Finds and reads the files of item features.

N items of the dataset, R rows of the file, d_m width. A feature file is one of
    X.npy          [R, d_m]; row i is item i, or the item in line i of an ids file with one source id per line
    X.npz          the same, as the only array of an archive
    X.parquet      columns `item` (source id) and `vector` (list or fixed-size list of float)
    X.feat1CLS     (any .feat...) float32 without a header, as UniSRec's and MISSRec's scripts write it with
                   `numpy.ndarray.tofile`; rows as in X.npy, and one of the two widths that these projects use
or a folder that jobs/encode_items.py wrote (`data.encoding.encoded_folder`).
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.errors import InputError
from contracts.modalities import is_modality_name
from data.encoding.encoded_folder import is_encoded_folder, read_encoded, read_encoded_manifest
from data.formats.columns import as_ids, read_parquet
from data.formats.delimited import read_ids
from data.layout import UNREADABLE, local_path
from storage.array_file import map_array
from storage.manifest import kind_of_folder

# The widths of UniSRec's BERT-base and of MISSRec's CLIP ViT-B/32.
_RAW_WIDTHS = (768, 512)
# The modalities of UniSRec's and MISSRec's files. Other raw files, such as UniSRec's .feat2CLS (texts with words left
# out, for its pre-training), are only read if they are named.
_RAW_MODALITIES = {".feat1CLS": "text", ".feat1Mean": "text", ".feat3CLS": "image"}
_NEVER_READ = (".npz", ".pt", ".pth", ".h5", ".hdf5", ".pkl", ".pickle", ".safetensors")


def read_feature_file(file: str, ids_file: str | None, num_items: int) -> tuple[np.ndarray, pa.Array | None]:
    """Return the rows of a file, and their source ids if the file or an ids file has them, else None.

    Args:
        file: path of the file.
        ids_file: path of a file with the source ids of the rows, or None.
        num_items: N, which is the number of rows of a raw file without an ids file.

    Raises:
        InputError: the file cannot be read, has another format, or has another number of rows than there are ids.
    """
    path = local_path(file)
    if not path.exists():
        raise InputError(f"{file}: no such file; check the path of --features")
    if path.is_dir():
        if (kind := kind_of_folder(path)) and not is_encoded_folder(path):
            raise InputError(
                f"{file}: is a {kind}, and --features takes vectors of items: a folder of jobs/encode_items.py, or a "
                ".npy, .npz or .parquet file"
            )
        if not is_encoded_folder(path):
            raise InputError(
                f"{file}: is a folder that jobs/encode_items.py has not finished; name a file, or such a folder"
            )
        if ids_file:
            raise InputError(f"{file}: names its items itself; leave --feature-ids out")
        vectors, items, _ = read_encoded(path)
        return vectors, items
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        if ids_file:
            raise InputError(f"{file}: a Parquet file names its items itself; leave --feature-ids out")
        return _read_vectors(file)
    is_raw = suffix.startswith(".feat")
    if suffix not in (".npy", ".npz") and not is_raw:
        raise InputError(f"{file}: features must be a .npy, .npz or .parquet file; convert it")
    ids = read_ids(ids_file) if ids_file else None
    if suffix == ".npz":
        array = _read_npz(file)
    else:
        array = _read_raw(file, num_items if ids is None else len(ids)) if is_raw else _read_npy(file)
    if ids is not None and array.ndim and len(ids) != len(array):
        raise InputError(f"{ids_file}: {len(ids)} ids for {len(array)} feature rows; give exactly one id a row")
    return array, ids


def encoder_of(file: str) -> dict[str, Any] | None:
    """Return what is known about the encoder of a folder of jobs/encode_items.py; None for files.

    Raises:
        InputError: the folder's manifest cannot be read.
    """
    path = local_path(file)
    return dict(read_encoded_manifest(path)["encoder"]) if path.is_dir() else None


def _read_npy(file: str) -> np.ndarray:
    try:
        return map_array(local_path(file))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error}); name an existing file") from None
    except ValueError as error:
        raise InputError(f"{file}: not a readable .npy file ({error}); write it again with numpy.save") from None


def _read_npz(file: str) -> np.ndarray:
    """Return the only array of an archive. It is read into memory, because archives are compressed."""
    if not zipfile.is_zipfile(local_path(file)):
        raise InputError(f"{file}: is no .npz archive, or is cut off; write it again with numpy.savez")
    try:
        with np.load(local_path(file), allow_pickle=False) as archive:
            names = archive.files
            if len(names) != 1:
                raise InputError(
                    f"{file}: holds {len(names)} arrays ({', '.join(names)[:200]}), expected one; save the rows of "
                    "features alone with numpy.save"
                )
            return archive[names[0]]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: not a readable .npz file ({error}); write it again with numpy.savez") from None


def _read_raw(file: str, num_rows: int) -> np.ndarray:
    """Return a memory map [num_rows, d_m]; the width d_m follows from the size of the file."""
    try:
        num_bytes = local_path(file).stat().st_size
        for width in _RAW_WIDTHS:
            if num_bytes == num_rows * width * 4:
                return np.memmap(local_path(file), "<f4", mode="r", shape=(num_rows, width))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error}); name an existing file") from None
    widths = " or ".join(map(str, _RAW_WIDTHS))
    raise InputError(
        f"{file}: holds {num_bytes} bytes, expected {num_rows} items x {widths} values of float32; a file "
        "without a header does not tell its shape, write another shape as .npy with numpy.save"
    )


def _read_vectors(file: str) -> tuple[np.ndarray, pa.Array]:
    try:
        table = read_parquet(local_path(file), {"item": "item", "vector": "vector"}, "rename it")
    except UNREADABLE as error:
        raise InputError(f"{file}: not a readable Parquet file ({' '.join(str(error).split())}); restore it") from None
    table = table.filter(pc.is_valid(table.column("vector")))
    kind = table.schema.field("vector").type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not pa.types.is_floating(kind.value_type):
        raise InputError(f"{file}: column vector is {kind}, expected a list of float; cast it")
    lengths = pc.list_value_length(table.column("vector")).to_numpy()
    if len(lengths) == 0:
        raise InputError(f"{file}: holds no vectors; leave this modality out")
    if len(bad := np.flatnonzero(lengths != lengths[0])):
        raise InputError(
            f"{file}: row {bad[0]} has {lengths[bad[0]]} values, row 0 has {lengths[0]}; make all vectors equally long"
        )
    values = pc.list_flatten(table.column("vector")).to_numpy()
    items = as_ids(table.column("item"), file, "item").combine_chunks()
    if items.null_count:
        raise InputError(f"{file}: column item has a null or an empty id; name the item of every vector")
    return values.reshape(len(lengths), int(lengths[0])), items


def detect_features(folder: Path, name: str) -> dict[str, str]:
    """Return the file of each modality in the folder with the sequences of dataset `name`.

    Feature files are `<name>.<modality>.npy`, `<name>.<modality>_<anything>.npy`, the same with `.parquet` (if its
    columns are those of a feature file), `<name>.feat1CLS` (text) and `<name>.feat3CLS` (image).

    Raises:
        InputError: there are two files for one modality, or a file looks like features and would not be read.
    """
    found: dict[str, str] = {}
    for file in sorted(folder.iterdir()):
        modality = _modality_of(file, name)
        if modality is None:
            continue
        if modality in found:
            raise InputError(
                f"{folder}: both {Path(found[modality]).name} and {file.name} are features for {modality}; "
                f"choose with --features {modality}=FILE"
            )
        found[modality] = str(file)
    return found


def _modality_of(file: Path, name: str) -> str | None:
    """Return the modality of a file in the folder, or None if it is not a feature file."""
    if file.name.startswith(".") or not file.is_file():
        return None
    is_own, suffix = file.name.startswith(f"{name}."), file.suffix.lower()
    own_name = file.stem.removeprefix(f"{name}.")  # text_minilm for `Sci.text_minilm.npy`
    has_rows = suffix == ".npy" or (suffix == ".parquet" and _has_vectors(file))
    if is_own and has_rows and file.stem != name and is_modality_name(modality := own_name.partition("_")[0]):
        return modality
    if is_own and file.suffix in _RAW_MODALITIES:
        return _RAW_MODALITIES[file.suffix]
    if has_rows or (is_own and (suffix in _NEVER_READ or suffix.startswith(".feat"))):
        raise InputError(
            f"{file}: looks like features that would not be read; name the files to read with "
            f"--features MODALITY=FILE, save it as {name}.MODALITY.npy, or move it away"
        )
    return None


def _has_vectors(file: Path) -> bool:
    try:
        return {"item", "vector"} <= set(pq.read_schema(file).names)
    except UNREADABLE:
        return False
