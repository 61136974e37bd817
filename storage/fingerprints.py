"""SHA-256 of files, folders and plain values: what says that two things are the same, or that a file was altered.

What is hashed, in which order, is part of the file formats: the digests of existing datasets, graphs and checkpoints
must stay what they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_PIECE_BYTES = 1 << 22


def file_digest(path: Path, flush: bool = False) -> str:
    """SHA-256 of a file's content, in hexadecimal; with `flush`, once it is on disk."""
    with path.open("rb") as file:
        if flush:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digest(files: Iterable[tuple[str, Path]], first: bytes = b"") -> str:
    """SHA-256 over `first` and then the name, size and content of each file, in the order given.

    A file is read 4 MiB at a time.

    Args:
        files: the name that is hashed, and where the file is.

    Raises:
        OSError: a file cannot be read; `filename` says which.
    """
    digest = hashlib.sha256(first)
    for name, path in files:
        try:
            digest.update(f"{name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    digest.update(piece)
        except OSError as error:
            error.filename = error.filename or str(path)  # a failing read does not name its file
            raise
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """Plain values as the bytes that are hashed for them: the order of fields does not count."""
    return json.dumps(value, sort_keys=True).encode()


def value_digest(value: Any) -> str:
    """SHA-256 of plain values, in hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
