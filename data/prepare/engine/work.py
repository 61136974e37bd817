"""The work folder of a preparation, by which an interrupted one continues.

    WORK/identity.json             what is prepared, and how; if it differs, the preparation starts afresh
    WORK/<stage>/00000042/         the files of a finished task and its facts; renamed into place when complete

A task is done when its folder is there. The files are not flushed to disk: they are read again only if the machine did
not crash, and a lost file costs no more than a new start.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa

from contracts.errors import InputError
from storage.array_file import map_array

_FACTS = "facts.json"
_SMALL_BYTES = 1 << 16  # smaller files are read, not mapped


class Executor(Protocol):
    """Runs the tasks of a stage, in this process or on a cluster."""

    def run(self, function: Callable[[int], None], tasks: Sequence[int], label: str) -> None:
        """Call a picklable function with the number of each task.

        Raises:
            InputError: the function raised it; the one of the first such task, in the order of `tasks`.
        """
        ...


@dataclass(frozen=True)
class Work:
    """The work files of a preparation; it can be pickled.

    Attributes:
        path: the folder.
    """

    path: Path

    @contextmanager
    def opened(self, identity: Mapping[str, Any]) -> Iterator[None]:
        """Continue the work that has this identity, or start afresh. Only one process at a time may.

        Raises:
            InputError: another process works in the folder.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as file:
            self._lock(file)
            text = json.dumps(identity, sort_keys=True)
            stated = self.path / "identity.json"
            if not stated.exists() or stated.read_text(encoding="utf-8") != text:
                self._clear()
                _write_text(stated, text)
            yield

    def _lock(self, file: IO[str]) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return  # some network file systems have no locks
            raise InputError(
                f"{self.path}: another command prepares the same dataset; wait for its end, or name another output"
            ) from None

    def _clear(self) -> None:
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def drop(self, stage: str) -> None:
        """Remove the files of a stage that are not needed any more, but keep its facts, so that it counts as done."""
        for task in (self.path / stage).glob("[0-9]*"):
            for path in task.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != _FACTS:
                    path.unlink()

    def task(self, stage: str, number: int) -> Path:
        """Return the folder of a task."""
        return self.path / stage / f"{number:08d}"

    def is_done(self, stage: str, number: int) -> bool:
        """Return whether a task is finished."""
        return (self.task(stage, number) / _FACTS).exists()

    def facts(self, stage: str, number: int) -> dict[str, Any]:
        """Return what a finished task stated about its files."""
        facts: dict[str, Any] = json.loads((self.task(stage, number) / _FACTS).read_text(encoding="utf-8"))
        return facts

    @contextmanager
    def writing(self, stage: str, number: int) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield a folder and a dict of facts to fill; they become the task's when the block ends.

        A task may run twice at the same time, if Ray believes that a worker is lost. The first result counts.
        """
        final = self.task(stage, number)
        folder = final.with_name(f".{final.name}.{uuid.uuid4().hex[:16]}")
        folder.mkdir(parents=True)
        facts: dict[str, Any] = {}
        try:
            yield folder, facts
            _write_text(folder / _FACTS, json.dumps(facts))
            try:
                os.rename(folder, final)
            except OSError:
                if not (final / _FACTS).exists():
                    raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def run(self, stage: str, function: Callable[[int], None], count: int, executor: Executor) -> list[dict[str, Any]]:
        """Run those tasks of a stage that are not done, and return the facts of all."""
        pending = [number for number in range(count) if not self.is_done(stage, number)]
        if pending:
            executor.run(partial(run_unless_done, self, stage, function), pending, stage.replace("/", " "))
        return [self.facts(stage, number) for number in range(count)]


def run_unless_done(work: Work, stage: str, function: Callable[[int], None], number: int) -> None:
    """Run a task that is not done. When Ray loses a node, it repeats tasks whose answers lay there."""
    if not work.is_done(stage, number):
        function(number)


def save(folder: Path, **arrays: Any) -> None:
    """Write arrays as NAME.npy."""
    for name, array in arrays.items():
        with (folder / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def load(folder: Path, name: str) -> np.ndarray:
    """Return an array that `save` wrote; a large one is mapped and read only where it is used."""
    path = folder / f"{name}.npy"
    if path.stat().st_size > _SMALL_BYTES:
        return map_array(path)
    array: np.ndarray = np.load(path, allow_pickle=False)
    return array


def save_batches(file: Path, batches: Sequence[pa.RecordBatch]) -> None:
    """Write record batches of one schema to an Arrow file."""
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def load_batch(file: Path, number: int) -> pa.RecordBatch:
    """Return a record batch of an Arrow file, mapped."""
    return pa.ipc.open_file(pa.memory_map(str(file))).get_batch(number)


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:16]}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
