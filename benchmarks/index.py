"""Measure indexes of item vectors: recall, time of a query, size, and memory of the build: python benchmarks/index.py

Vectors are synthetic: each is one of N / 500 centres plus as much noise, with lengths that differ as those of popular
items do. Queries are made in the same way. The exact best items are those of a flat index; the ranking of evaluation,
which computes blocks of scores, finds them too, in the same run, and the lists are compared. All other times are given
as shares of the flat index's. Each index is built in a process of its own; the memory of the build is the peak of the
process less what it held before, and its time includes making the vectors. Times are processor seconds on one thread:
of all queries in one batch, and of queries alone. The last line is one JSON object of ratios.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np
import torch
from tabulate import tabulate

from distributed.host_memory import keep_freed_memory
from evaluation.item_blocks import ItemBlocks
from evaluation.ranking import top_items
from evaluation.user_batches import UserBatch, user_batch
from serving.index.build import build_index
from serving.index.kinds import IndexOptions, load_faiss
from serving.index.recall import SearchPoint, measure, median_ms, recall
from serving.index.search import VectorIndex
from serving.index.two_stage import TwoStages

_BLOCK = 16384
_LENGTHS = (10, 100)
_MIB = 1 << 20
_CLOCK = time.process_time
_USERS = 256  # users of a batch of the ranking
_GAIN_HIDDEN, _GAIN_RAISED = 20, 50
# The efforts of each kind's curve: efSearch, which is at least the depth of the search, or nprobe.
EFFORTS: dict[str, tuple[int | None, ...]] = {
    "flat": (None,),
    "hnsw": (16, 32, 64, 128, 256, 512),
    "ivfflat": (1, 4, 16, 64, 256),
    "ivfpq": (1, 4, 16, 64, 256),
}


@dataclass(frozen=True)
class Catalogue:
    """Synthetic vectors, made block by block from seeds, so that no more than a block is in memory.

    Attributes:
        num_items: N.
        width: D.
    """

    num_items: int
    width: int

    def block(self, number: int) -> np.ndarray:
        """Return the vectors of a block, float32 [n, D]."""
        count = min(_BLOCK, self.num_items - number * _BLOCK)
        return self._near(np.random.default_rng([1, number]), count)

    def blocks(self, start: int, stop: int) -> Iterable[tuple[int, np.ndarray]]:
        """Yield the blocks that cover a range of items; see `serving.index.build.Blocks`."""
        for number in range(start // _BLOCK, -(-stop // _BLOCK)):
            yield number * _BLOCK, self.block(number)

    def queries(self, count: int) -> np.ndarray:
        """Return the vectors of users, float32 [B, D]."""
        return self._near(np.random.default_rng(2), count)

    def _near(self, generator: np.random.Generator, count: int) -> np.ndarray:
        num_centers = max(self.num_items // 500, 16)
        centers = np.random.default_rng(0).standard_normal((num_centers, self.width), dtype=np.float32)
        vectors = centers[generator.integers(num_centers, size=count)]
        vectors += generator.standard_normal(vectors.shape, dtype=np.float32)
        vectors *= np.exp(0.2 * generator.standard_normal((count, 1), dtype=np.float32))
        return vectors / np.float32(np.sqrt(self.width))


@click.command()
@click.option("--items", default=1_000_000, show_default=True, type=click.IntRange(100))
@click.option("--width", default=192, show_default=True, type=click.IntRange(4))
@click.option("--queries", default=512, show_default=True, type=click.IntRange(1))
@click.option("--alone", default=32, show_default=True, type=click.IntRange(1), help="queries that are timed alone")
@click.option("--kinds", default="hnsw,ivfflat,ivfpq", show_default=True)
@click.option("--shard-items", default=1 << 20, show_default=True, type=click.IntRange(1))
@click.option("--small", is_flag=True, help="3,000 items of width 16")
@click.option("--folder", default=None, type=click.Path(file_okay=False), help="scratch space; null: a temporary one")
@click.option("--build", default=None, hidden=True, help="build one index in --folder, and print its figures")
def main(
    items: int,
    width: int,
    queries: int,
    alone: int,
    kinds: str,
    shard_items: int,
    small: bool,
    folder: str | None,
    build: str | None,
) -> None:
    """Print tables and, on the last line, JSON."""
    torch.set_num_threads(1)
    load_faiss().omp_set_num_threads(1)
    catalogue = Catalogue(3000, 16) if small else Catalogue(items, width)
    if build is not None:
        assert folder is not None
        print(json.dumps(built(catalogue, folder, build, shard_items)))
        return
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        figures = compare(catalogue, Path(scratch), kinds.split(","), queries, alone, shard_items)
    print(json.dumps(figures))


def built(catalogue: Catalogue, folder: str, kind: str, shard_items: int) -> dict[str, float]:
    """Build an index in this process and return its size, seconds, and the memory that it took."""
    catalogue.block(0)
    before = _peak_bytes()
    start = _CLOCK()
    manifest = build_index(
        catalogue.blocks,
        folder,
        num_items=catalogue.num_items,
        widths=[catalogue.width],
        options=IndexOptions(kind=kind),
        shard_items=shard_items,
    )
    seconds = _CLOCK() - start
    return {"bytes": manifest.total_bytes, "seconds": seconds, "peak": _peak_bytes() - before}


def _peak_bytes() -> int:
    """Return the greatest resident memory of this process. (`ru_maxrss` would include the process that started it.)"""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def build_apart(catalogue: Catalogue, folder: Path, kind: str, shard_items: int) -> dict[str, float]:
    """Build an index in a process of its own; see `built`."""
    command = [sys.executable, __file__, f"--build={kind}", f"--folder={folder}", f"--shard-items={shard_items}"]
    command += [f"--items={catalogue.num_items}", f"--width={catalogue.width}"]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(run.stdout.splitlines()[-1]))


def compare(
    catalogue: Catalogue, folder: Path, kinds: list[str], num_queries: int, num_alone: int, shard_items: int
) -> dict[str, Any]:
    """Build and search all indexes, print tables, and return the ratios."""
    keep_freed_memory()
    queries = catalogue.queries(num_queries)
    builds, rows = [], []
    figures: dict[str, Any] = {"items": catalogue.num_items, "width": catalogue.width}
    flat_build: dict[str, float] = {}
    flat: dict[int, SearchPoint] = {}
    exact = np.zeros((0, 0), dtype=np.int64)
    ranking = Ranking(catalogue, queries, num_alone)
    for kind in ("flat", *kinds):
        build = build_apart(catalogue, folder / kind, kind, shard_items)
        flat_build = flat_build or build
        builds.append([kind, build["bytes"] / _MIB, build["seconds"], build["peak"] / _MIB])
        index, points = VectorIndex.open(folder / kind), []
        if kind == "flat":
            exact, _ = index.search(queries, max(_LENGTHS))
        for effort in EFFORTS[kind]:
            found = {
                n: measure(index, queries, exact, lengths=(n,), effort=effort, alone=num_alone, clock=_CLOCK)
                for n in _LENGTHS
            }
            flat = flat or found
            rows.append(_table_row(kind, effort, found, flat))
            points.append(_ratios(effort, found, flat))
        figures[kind] = {
            "bytes_over_flat": build["bytes"] / flat_build["bytes"],
            "build_peak_over_index": build["peak"] / build["bytes"],
            "build_time_over_flat": build["seconds"] / flat_build["seconds"],
            "points": points,
            "two_stages": ranking.two_stages(index),
        }
        print(json.dumps({kind: figures[kind], "build": build}), file=sys.stderr, flush=True)
    rows.append(ranking.row(flat))
    figures["ranking"] = ranking.figures(exact, flat)
    print(tabulate(builds, headers=["kind", "MiB", "build s", "peak MiB of the build"], floatfmt=".1f"), "\n")
    heads = [f"{what}@{n}" for n in _LENGTHS for what in ("recall", "ms", "/ flat", "ms alone", "/ flat, alone")]
    print(tabulate(rows, headers=["kind", "effort", *heads], floatfmt=".3g"), "\n")
    stages = [[kind, *figures[kind]["two_stages"].values()] for kind in ("flat", *kinds)]
    print(f"Two stages, {_GAIN_HIDDEN} hidden items and {_GAIN_RAISED} items with a gain a user, lists of 10:")
    print(tabulate(stages, headers=["kind", *figures["flat"]["two_stages"]], floatfmt=".3g"))
    return figures


def _table_row(kind: str, effort: int | None, found: dict[int, SearchPoint], flat: dict[int, SearchPoint]) -> list[Any]:
    row: list[Any] = [kind, effort]
    for n, p in found.items():
        row += [p.recall[n], p.ms_per_query, p.ms_per_query / flat[n].ms_per_query, p.ms_alone]
        row.append(p.ms_alone / flat[n].ms_alone)
    return row


def _ratios(effort: int | None, found: dict[int, SearchPoint], flat: dict[int, SearchPoint]) -> dict[str, Any]:
    ratios: dict[str, Any] = {"effort": effort}
    for n, point in found.items():
        ratios[f"recall@{n}"] = point.recall[n]
        ratios[f"time_over_flat@{n}"] = point.ms_per_query / flat[n].ms_per_query
        ratios[f"alone_over_flat@{n}"] = point.ms_alone / flat[n].ms_alone
    return ratios


class Ranking:
    """The exact ranking of `evaluation`, with all item vectors in memory; it is timed with and without gains."""

    def __init__(self, catalogue: Catalogue, queries: np.ndarray, num_alone: int) -> None:
        """Make the items' vectors, and gains for every query, and time the ranking."""
        self._vectors = torch.from_numpy(np.concatenate([x for _, x in catalogue.blocks(0, catalogue.num_items)]))
        self._queries, self._num_alone = queries, min(num_alone, len(queries))
        self._items = ItemBlocks(
            encode=lambda ids: self._vectors[ids[0] : ids[-1] + 1] if len(ids) else self._vectors[:0],
            num_items=catalogue.num_items,
            item_block=_BLOCK,
            rank=0,
            world=1,
            held_bytes=float("inf"),
        )
        generator = np.random.default_rng(3)
        count = _GAIN_HIDDEN + _GAIN_RAISED
        self._gain_items = generator.integers(catalogue.num_items, size=(len(queries), count))
        self._gains = np.full((len(queries), count), -np.inf, dtype=np.float32)
        self._gains[:, _GAIN_HIDDEN:] = generator.random((len(queries), _GAIN_RAISED), dtype=np.float32)
        self._lists(self.users(0, 1, gains=False), 1)  # compiles
        self.points = {}
        for n in _LENGTHS:
            start = _CLOCK()
            ids = np.concatenate([self._lists(batch, n) for batch in self.batches(gains=False)])
            ms = 1e3 * (_CLOCK() - start) / len(queries)
            alone = median_ms(partial(self._one, k=n), self._num_alone, _CLOCK)
            self.points[n] = ids, ms, alone
        self._with_gains = np.concatenate([self._lists(batch, 10) for batch in self.batches(gains=True)])

    def users(self, first: int, count: int, *, gains: bool) -> UserBatch:
        """Return some queries as users."""
        part = slice(first, first + count if gains else first)
        pairs = self._gain_items[part].ravel(), np.arange(self._gain_items[part].size) // self._gains.shape[1]
        vectors = torch.from_numpy(self._queries[first : first + count])
        return user_batch(vectors, np.full(len(vectors), -1), *pairs, self._gains[part].ravel())

    def batches(self, *, gains: bool) -> list[UserBatch]:
        """Return all queries as users in batches."""
        return [self.users(first, _USERS, gains=gains) for first in range(0, len(self._queries), _USERS)]

    def _lists(self, users: UserBatch, k: int) -> np.ndarray:
        return torch.cat([ids for ids, _ in top_items([[users]], self._items, k)]).numpy()

    def _one(self, at: int, k: int) -> np.ndarray:
        return self._lists(self.users(at, 1, gains=False), k)

    def row(self, flat: dict[int, SearchPoint]) -> list[Any]:
        """Return the table's row of the exact ranking; its recall is 1 by definition of the flat index's lists."""
        row: list[Any] = ["exact ranking", None]
        for n, (_, ms, alone) in self.points.items():
            row += ["", ms, ms / flat[n].ms_per_query, alone, alone / flat[n].ms_alone]
        return row

    def figures(self, exact: np.ndarray, flat: dict[int, SearchPoint]) -> dict[str, float]:
        """Return the ratios of the exact ranking, and how far its lists are those of the flat index."""
        figures: dict[str, float] = {}
        for n, (ids, ms, alone) in self.points.items():
            figures[f"flat_recall@{n}"] = recall(exact[:, :n], ids)
            figures[f"time_over_flat@{n}"] = ms / flat[n].ms_per_query
            figures[f"alone_over_flat@{n}"] = alone / flat[n].ms_alone
        return figures

    def two_stages(self, index: VectorIndex) -> dict[str, float]:
        """Return recall and times of lists of ten by candidates of an index, where items have gains."""
        stages = TwoStages(index=index, items=self._items, vectors_of=lambda ids: self._vectors[torch.from_numpy(ids)])
        start = _CLOCK()
        found = [stages.top([batch], 10) for batch in self.batches(gains=True)]
        ms = 1e3 * (_CLOCK() - start) / len(self._queries)
        alone = median_ms(lambda at: stages.top([self.users(at, 1, gains=True)], 10), self._num_alone, _CLOCK)
        return {
            "recall@10": recall(np.concatenate([lists.ids for lists in found]), self._with_gains),
            "proven": float(np.concatenate([lists.proven for lists in found]).mean()),
            "time / ranking": ms / self.points[10][1],
            "time / ranking, alone": alone / self.points[10][2],
        }


if __name__ == "__main__":
    main()
