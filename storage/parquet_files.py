"""Check whether a Parquet file that a job wrote earlier is still whole."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def parquet_is_whole(file: Path) -> bool:
    """Return whether a Parquet file is there and can be read to its end, with the checksums of its pages."""
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as opened:
            for _ in opened.iter_batches():
                pass
    except (pa.ArrowException, OSError):
        return False
    return True
