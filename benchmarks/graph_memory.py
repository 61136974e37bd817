"""Measure the memory of a large neighbour search: python benchmarks/graph_memory.py [--num-items 1000000]

The benchmark writes random features and runs the first tasks of the neighbour search one after the other in this
process: the order of items, some blocks, and their merges. It prints the peak resident memory and its limit, which is
the size of the features plus 2 GiB. The last line is JSON. The time of the whole search is extrapolated from the
median time of the blocks, not measured.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from graph_builder.stages.injection import FeatureSpec
from graph_builder.stages.neighbor_tasks import NeighborSpec, finish_range, merge_range, order_items, search_block
from graph_builder.stages.neighbors import default_rows_per_task
from graph_builder.stages.triangle import block_rounds, blocks_of
from graph_builder.work_folder import WorkFolder
from kernels.cosine.cosine_topk import square_norms
from storage.array_file import save_array
from storage.durable_files import replacing

_GIB = 1 << 30
_ALLOWED = 2 * _GIB
_CHUNK = 1 << 14


@click.command()
@click.option("--num-items", default=1_000_000, show_default=True)
@click.option("--width", default=384, show_default=True)
@click.option("--num-neighbors", default=10, show_default=True)
@click.option("--blocks", default=3, show_default=True, help="number of blocks of the first round to run")
@click.option("--threads", default=1, show_default=True)
@click.option("--folder", default=None, type=click.Path(path_type=Path), help="scratch space; null: a temporary one")
def main(num_items: int, width: int, num_neighbors: int, blocks: int, threads: int, folder: Path | None) -> None:
    """Print the peak memory and the times of some tasks of a large build."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        figures = run_slice(Path(scratch), num_items, width, num_neighbors, blocks, threads)
    print(json.dumps(figures))


def run_slice(
    folder: Path, num_items: int, width: int, num_neighbors: int, num_blocks: int, threads: int
) -> dict[str, float | bool]:
    """Run `num_blocks` blocks, merge and finish them. Return sizes in GiB and times in seconds."""
    features = FeatureSpec(
        modality="text",
        features=folder / "text.npy",
        work=WorkFolder(folder),
        num_items=num_items,
        block_rows=2048,
        backend="cpu",
    )
    write_features(features, num_items, width)
    spec = NeighborSpec(
        features=features,
        rows_per_task=default_rows_per_task(num_items, 0),
        others=num_neighbors - 1,
        include_self=True,
        precision="float32",
        threads=threads,
    )
    order_items(spec, 0)
    rounds = block_rounds(spec.num_ranges)
    chosen = rounds[0][:num_blocks]
    seconds = []
    for block in chosen:
        start = time.perf_counter()
        search_block(spec, block)
        seconds.append(time.perf_counter() - start)
        print(f"block {block}: {seconds[-1]:.1f} s, peak {peak_bytes() / _GIB:.2f} GiB", flush=True)
    for index in sorted({index for block in chosen for index in block}):
        merge_range(spec, (index, blocks_of(chosen, index)))
    finish_range(spec, 0)
    bytes_of_features = num_items * width * 4
    total = sum(len(round_blocks) for round_blocks in rounds)
    return {
        "num_items": num_items,
        "blocks_run": len(chosen),
        "blocks_in_all": total,
        "seconds_per_block": float(np.median(seconds)),
        "core_seconds_in_all": float(np.median(seconds)) * total * threads,
        "features_gib": bytes_of_features / _GIB,
        "peak_rss_gib": peak_bytes() / _GIB,
        "limit_gib": (bytes_of_features + _ALLOWED) / _GIB,
        "within_limit": peak_bytes() <= bytes_of_features + _ALLOWED,
    }


def write_features(features: FeatureSpec, num_items: int, width: int) -> None:
    """Write random files in place of the results of injection and k-means: rows, their squares, labels."""
    rng = np.random.default_rng(0)
    squares = np.empty(num_items)
    with replacing(features.injected) as temporary, temporary.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (num_items, width)}
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, num_items, _CHUNK):
            rows = rng.standard_normal((min(_CHUNK, num_items - first), width), dtype=np.float32)
            rows.tofile(file)
            squares[first : first + len(rows)] = square_norms(rows)
    save_array(features.squares, squares)
    save_array(features.work.graph / "clusters" / "text.npy", rng.integers(0, 16, num_items))


def peak_bytes() -> int:
    """Return the peak resident memory of this process, including mapped pages of the features."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
