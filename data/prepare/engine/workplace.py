"""Where a preparation works: its folder, and the executor that is chosen when the size of the input is known."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from contracts.errors import InputError
from data.formats.source import Chunk, InteractionSource
from data.prepare.engine.executor import in_this_process
from data.prepare.engine.plan import KnownIds, Rules, Sizes
from data.prepare.engine.result import Prepared
from data.prepare.engine.run import prepare
from data.prepare.engine.work import Executor, Work
from storage.fingerprints import value_digest

# Changes whenever the files of a work folder do.
_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where a preparation works.

    Attributes:
        folder: the work folder; it is removed at the end, and kept if the preparation was interrupted.
        executor: gives the executor for an input of so many bytes.
        sizes: how large the parts of each stage are.
    """

    folder: Path
    executor: Callable[[int], AbstractContextManager[Executor]] = in_this_process
    sizes: Sizes = field(default_factory=Sizes)


@contextmanager
def prepared(
    source: InteractionSource, rules: Rules, place: Workplace, known: KnownIds | None = None
) -> Iterator[Prepared]:
    """Yield the result of all stages, whose files exist within this context. Unfinished work is continued.

    Raises:
        InputError: see `run.prepare`; or the work folder cannot be written to.
    """
    work = Work(place.folder)
    chunks = source.chunks(place.sizes.chunk_bytes)
    try:
        with work.opened(_identity(source, chunks, rules, place.sizes, known)):
            try:
                with place.executor(sum(chunk.num_bytes for chunk in chunks)) as executor:
                    yield prepare(source, chunks, rules, work=work, executor=executor, sizes=place.sizes, known=known)
            except InputError as error:
                if not isinstance(error.__cause__, OSError):  # the files are of no use for a corrected input
                    work.remove()
                raise
            work.remove()
    except OSError as error:
        # numpy's errors have no number.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) or "free space" in str(error)
        raise InputError(
            f"{place.folder}: the work files, which are beside the output, cannot be written "
            f"({error.strerror or error}); {'free space there' if full else 'change permissions or the output'}, and "
            "repeat the command: finished parts are kept"
        ) from error


def _identity(
    source: InteractionSource, chunks: Sequence[Chunk], rules: Rules, sizes: Sizes, known: KnownIds | None
) -> dict[str, Any]:
    files = dict.fromkeys(chunk.file for chunk in chunks)
    return {
        "version": _VERSION,
        "source": {name: str(value) for name, value in source.parameters.items()},
        "chunks": value_digest([asdict(chunk) for chunk in chunks]),
        "files": value_digest([[file, *_state(file)] for file in files]),
        "rules": asdict(rules),
        "sizes": asdict(sizes),
        "known": None if known is None else [_digest(known.users), _digest(known.items)],
    }


def _state(file: str) -> list[int]:
    """Return size and time of the last change of a file; nothing if it is not a local one."""
    try:
        state = os.stat(file)
    except OSError:
        return []
    return [state.st_size, state.st_mtime_ns]


def _digest(ids: pa.Array) -> str:
    return hashlib.sha256(pa.record_batch({"id": ids}).serialize()).hexdigest()
