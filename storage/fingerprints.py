"""Compute SHA-256 fingerprints of files, folders and plain values, which show whether content is the same.

The content that is hashed, and its order, are part of the file formats: the fingerprints of existing datasets, graphs
and checkpoints must not change.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 22


def file_digest(path: Path, flush: bool = False) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal. With `flush`, flush the file to disk first."""
    with path.open("rb") as file:
        if flush:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digest(files: Iterable[tuple[str, Path]], first: bytes = b"") -> str:
    """Return the SHA-256 of `first`, followed by the name, size and content of each file, in the given order.

    A file is read 4 MiB at a time.

    Args:
        files: for each file, the name that is hashed, and its path.
        first: bytes that are hashed before the files.

    Raises:
        OSError: a file cannot be read; the attribute `filename` names it.
    """
    digest = hashlib.sha256(first)
    for name, path in files:
        try:
            digest.update(f"{name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
        except OSError as error:
            error.filename = error.filename or str(path)  # errors of `read` have no file name
            raise
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """Return the bytes that are hashed for plain values. They do not depend on the order of a dict's fields."""
    return json.dumps(value, sort_keys=True).encode()


def value_digest(value: Any) -> str:
    """Return the SHA-256 of plain values, in hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def joined_digest(fingerprints: Sequence[str]) -> str:
    """Return the fingerprint of several datasets, or of their graphs, in this order; a single one keeps its own."""
    return fingerprints[0] if len(fingerprints) == 1 else value_digest({"joined": list(fingerprints)})
