"""The work files of an unfinished graph, by which an interrupted build continues.

    GRAPH/work/progress.json            identity of the build: dataset, parameters, seed, and how the work is split;
                                        if it differs, the build starts afresh
    GRAPH/work/<stage>/block-00000.npz  one file per finished block, renamed into place

When all blocks of a stage exist, they are joined into `.npy` files and removed. So a stage is finished when its
joined files exist. Every file is written under a temporary name first.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from contracts.errors import InputError
from graph_builder import progress
from graph_builder.executor import Executor
from storage.durable_files import is_temporary, replacing
from storage.manifest import MANIFEST

log = logging.getLogger(__name__)

_OWN_FOLDERS = ("cooccurrence", "neighbors", "clusters", "work")


class WorkFolder:
    """The finished blocks of an unfinished graph."""

    def __init__(self, graph: Path) -> None:
        self.graph = graph
        self.path = graph / "work"

    @classmethod
    def start(cls, graph: Path, identity: dict[str, Any]) -> WorkFolder:
        """Continue the folder's unfinished build if its identity is the same; else clear the folder and log why.

        Call `check_folder` and all other checks first, because this may remove a finished graph.
        """
        work = cls(graph)
        before = read_json(work.path / "progress.json")
        finished = read_json(graph / MANIFEST)
        if before == identity and not (graph / MANIFEST).exists():
            log.info("graph %s: continuing an unfinished build", graph)
            return work
        if isinstance(finished, dict):
            before = {name: finished.get(name) for name in identity}
        if before is not None:
            log.warning("graph %s: starting afresh: %s", graph, _differences(before, identity))
        work._clear()
        work.path.mkdir(parents=True)
        write_json(work.path / "progress.json", identity)
        return work

    def _clear(self) -> None:
        # The manifest goes first: a folder without one is an unfinished graph.
        (self.graph / MANIFEST).unlink(missing_ok=True)
        for name in _OWN_FOLDERS:
            if (self.graph / name).exists():
                shutil.rmtree(self.graph / name)

    def remove(self) -> None:
        """Remove the work files, and the temporary files of writers that were killed."""
        shutil.rmtree(self.path, ignore_errors=True)
        for leftover in self.graph.rglob(".*"):
            if is_temporary(leftover.name):
                leftover.unlink(missing_ok=True)

    def block_path(self, stage: str, index: int) -> Path:
        return self.path / stage / f"block-{index:05d}.npz"

    def run_row_stage(
        self,
        stage: str,
        function: Callable[[int], None],
        block_rows: int,
        num_rows: int,
        targets: dict[str, Path],
        executor: Executor,
        on_gpu: bool = False,
    ) -> None:
        """Run the unfinished blocks of a stage, and join the arrays of all blocks.

        Args:
            stage: the stage's name.
            function: called with a block's index; writes `block_path(stage, index)` with one array per target, rows
                in item order.
            block_rows: rows of a block.
            num_rows: rows of all blocks together.
            targets: array name -> joined `.npy` file, with num_rows rows.
            executor: runs the blocks.
            on_gpu: the function uses a GPU if there is one.
        """
        if all(path.exists() for path in targets.values()):
            return
        blocks = [self.block_path(stage, index) for index in range(num_row_blocks(block_rows, num_rows))]
        pending = [index for index, path in enumerate(blocks) if not path.exists()]
        for _ in executor.run_blocks(function, pending, label=stage, on_gpu=on_gpu):
            pass
        progress.begin(f"joining the blocks of {stage}")
        for name, path in targets.items():
            join_blocks(blocks, name, path, num_rows)
        shutil.rmtree(self.path / stage)


def check_folder(graph: Path) -> None:
    """Check that a graph may be built at this path: the folder does not exist, or holds only files of a graph.

    Raises:
        InputError: the path is a file, the folder holds other files, or it cannot be created or written to.
    """
    if graph.exists() and not graph.is_dir():
        raise InputError(f"graph={graph}: is a file; name a folder to build the graph in")
    nearest = next(path for path in (graph, *graph.parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"graph={graph}: {nearest} is not a folder that can be written to; name another")
    foreign = sorted(path.name for path in graph.iterdir() if not _is_own(path)) if graph.exists() else []
    if foreign:
        raise InputError(f"graph={graph}: holds {foreign[0]!r}, which no graph has; name an empty or new folder")
    if links := sorted(name for name in (MANIFEST, *_OWN_FOLDERS) if (graph / name).is_symlink()):
        raise InputError(f"graph={graph}: {links[0]} in it is a link, and a build replaces it; name another folder")


def row_range(index: int, block_rows: int, num_rows: int) -> slice:
    """Return the rows of a block. All blocks except the last have `block_rows` rows."""
    return slice(index * block_rows, min((index + 1) * block_rows, num_rows))


def num_row_blocks(block_rows: int, num_rows: int) -> int:
    return -(-num_rows // block_rows)


def save_block(path: Path, **arrays: np.ndarray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def join_blocks(blocks: list[Path], name: str, path: Path, num_rows: int) -> None:
    """Write the arrays `name` of all blocks, one after the other, to one `.npy` file. Memory: one block at a time."""
    with replacing(path) as temporary:
        joined: np.memmap | None = None
        begin = 0
        for block in blocks:
            with np.load(block, allow_pickle=False) as arrays:
                rows = arrays[name]
            if joined is None:
                shape = (num_rows, *rows.shape[1:])
                joined = np.lib.format.open_memmap(temporary, mode="w+", dtype=rows.dtype, shape=shape)
            joined[begin : begin + len(rows)] = rows
            begin += len(rows)
        assert joined is not None
        assert begin == num_rows
        joined.flush()


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; None if there is no such file or it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file that several processes may write at the same time."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def _is_own(path: Path) -> bool:
    return path.name == MANIFEST or path.name in _OWN_FOLDERS or is_temporary(path.name)


def _differences(before: Any, now: dict[str, Any]) -> str:
    if not isinstance(before, dict):
        return "the progress file is damaged"
    old, new = _flat(before), _flat(now)
    changed = [name for name in sorted(new) if old.get(name) != new[name]]
    if not changed:
        return "the earlier work is damaged"
    return ", ".join(f"{name} changed from {old.get(name)!r} to {new[name]!r}" for name in changed)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat
