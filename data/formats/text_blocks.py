"""Reads text files as blocks of whole lines: byte ranges of plain files, and compressed files from start to end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from contracts.errors import InputError

COMPRESSED = (".gz", ".bz2", ".zst")
_LONGEST_LINE = 256 << 20


def is_compressed(file: str | Path) -> bool:
    """Return whether the file's suffix is one of a compression that is read."""
    return str(file).lower().endswith(COMPRESSED)


def data_suffix(file: str | Path) -> str:
    """Return the suffix in lower case, without that of a compression: `.csv` for `x.CSV.gz`."""
    path = Path(str(file))
    return Path(path.stem if is_compressed(path) else path.name).suffix.lower()


def open_bytes(path: Path) -> Any:
    """Open a file for reading, and decompress it if its suffix says so.

    Raises:
        OSError: the file cannot be opened.
    """
    if not is_compressed(path):
        return path.open("rb")
    kind = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}[path.suffix.lower()]
    return pa.CompressedInputStream(pa.OSFile(str(path)), kind)


def line_ranges(path: Path, start: int, chunk_bytes: int) -> list[tuple[int, int]]:
    """Divide a plain file into byte ranges of about this size, each of which ends with a line.

    Args:
        path: the file.
        start: the first byte of the first range, such as the end of a header.
        chunk_bytes: the size.
    """
    size, ranges = path.stat().st_size, []
    with path.open("rb") as stream:
        while start < size:
            stop = min(start + chunk_bytes, size)
            if stop < size:
                stream.seek(stop - 1)
                stream.readline()  # to the end of the line that holds the byte before `stop`
                stop = stream.tell()
            ranges.append((start, stop))
            start = stop
    return ranges


def line_blocks(name: str, path: Path, start: int, stop: int | None, block_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of whole lines, about this many at a time; the last line may lack its end.

    Args:
        name: the file's name, for messages.
        path: the file; it is decompressed if its suffix says so.
        start: the first byte, after decompression.
        stop: the byte after the last; None: to the end.
        block_bytes: bytes to read at a time.

    Raises:
        InputError: a line is very long, so this is no text, or the file cannot be decompressed.
        OSError: the file cannot be read.
    """
    with open_bytes(path) as stream:
        _skip(name, stream, start, is_compressed(path))
        left = None if stop is None else stop - start
        parts: list[bytes] = []
        while left is None or left > 0:
            chunk = _read(name, stream, block_bytes if left is None else min(block_bytes, left), is_compressed(path))
            if not chunk:
                break
            left = None if left is None else left - len(chunk)
            end = chunk.rfind(b"\n") + 1
            if end:
                yield b"".join([*parts, chunk[:end]])
                parts = [chunk[end:]] if end < len(chunk) else []
                continue
            parts.append(chunk)
            if sum(map(len, parts)) > _LONGEST_LINE:
                raise InputError(f"{name}: has no line end in {_LONGEST_LINE >> 20} MiB; write one row a line")
        if parts:
            yield b"".join(parts)


def _skip(name: str, stream: Any, num: int, is_packed: bool) -> None:
    if not is_packed:
        stream.seek(num)
        return
    while num > 0 and (chunk := _read(name, stream, min(num, 1 << 20), is_packed)):
        num -= len(chunk)


def _read(name: str, stream: Any, num: int, is_packed: bool) -> bytes:
    try:
        return bytes(stream.read(num))
    except (OSError, pa.ArrowException) as error:
        if not is_packed:
            raise
        raise refused_compression(name, error) from None


def refused_compression(name: str, error: Exception) -> InputError:
    """Return the error for a file that is not what its suffix says, is damaged or is cut off."""
    reason = " ".join(str(error).split())
    return InputError(f"{name}: cannot be decompressed ({reason:.200}); it is damaged or cut off, restore it")
