"""Export a finished graph to files that other libraries read: SciPy, Parquet, PyTorch Geometric.

An edge leads from the row item of an entry of O to its column item, or from an item to its neighbour. Its weight is
O's normalised weight or the cosine. Edges are sorted by source. The targets of a source have the graph's order: by
ascending id for O, best first for neighbours. In CSR they are sorted by id. Padding is left out, and so are the rows
of items that lack the modality. If an item is its own neighbour, that edge is kept.

Memory: under 200 MB for any number of edges, plus 24 bytes per item for CSR, plus mapped pages, which the system can
reclaim. Edges are processed in chunks. A format that needs an array whole gets it through unnamed files beside the
output (28 bytes per edge at most).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from contracts.errors import InputError
from graph_builder.export_formats import EDGES_AT_A_TIME, KINDS, Edges
from graph_builder.graph import Graph
from graph_builder.work_folder import num_row_blocks, row_range
from storage.array_file import map_array
from storage.durable_files import replacing

_NEIGHBORS = "neighbors:"


def export(graph: Graph, what: str, to: str, output: Path, overwrite: bool = False) -> int:
    """Write one relation of a graph to a file. Return the number of edges.

    Args:
        graph: the graph.
        what: "cooccurrence" or "neighbors:<modality>".
        to: the format. "npz": `scipy.sparse.load_npz` returns a CSR matrix [N, N] float32. "parquet": columns source,
            target (int64), weight (float32). "edge_index": `torch.load` returns {"edge_index": int64 [2, E],
            "edge_weight": float32 [E], "num_nodes": N}, the keywords of torch_geometric's Data. Its layers pass
            messages from source to target. To collect an item's neighbours *at* the item, flip edge_index or choose
            flow="target_to_source".
        output: the file to write.
        overwrite: replace `output` if it is a file of this format. Any other file is never replaced.

    Raises:
        InputError: there is no such modality, the output may not be written, or the disk cannot be written to.
    """
    kind = KINDS[to]
    check_output(graph, output, to, overwrite)
    edges = _edges_of(graph, what)
    try:
        with replacing(output) as temporary:
            return kind.write(edges, graph.num_items, temporary)
    except OSError as error:
        raise InputError(
            f"--output {output}: cannot be written ({error.strerror or error}); free space or change permissions"
        ) from None


def check_output(graph: Graph, output: Path, to: str, overwrite: bool) -> None:
    """Check that the file may be written.

    Raises:
        InputError: it may not.
    """
    if not output.parent.is_dir():
        raise InputError(f"--output {output}: its folder does not exist; create it first")
    if graph.path.resolve() in output.resolve().parents:
        raise InputError(f"--output {output}: lies in the graph's own folder; name a file outside of it")
    if output.is_symlink() or (output.exists() and not output.is_file()):
        raise InputError(f"--output {output}: exists and is not a plain file; name another file")
    if not output.exists():
        return
    if not KINDS[to].recognises(output):
        raise InputError(
            f"--output {output}: exists and is not a file that --to {to} writes, so it is never replaced; name another"
        )
    if not overwrite:
        raise InputError(f"--output {output}: exists; name another file or add --overwrite")


def _edges_of(graph: Graph, what: str) -> Callable[[], Iterator[Edges]]:
    """Return a function that yields all edges in chunks, each time that it is called."""
    if what == "cooccurrence":
        return lambda: _cooccurrence_edges(graph)
    modality = what.removeprefix(_NEIGHBORS)
    if what.startswith(_NEIGHBORS) and modality in graph.modalities:
        return lambda: _neighbor_edges(graph, modality)
    known = ", ".join(["cooccurrence", *(_NEIGHBORS + m for m in graph.modalities)])
    raise InputError(f"--what {what}: graph {graph.path} has {known}; name one of these")


def _cooccurrence_edges(graph: Graph) -> Iterator[Edges]:
    """Yield the entries of O from its mapped blocks (`row_blocks` describes the files)."""
    block_rows = graph.manifest["cooccurrence"]["block_rows"]
    for block in range(num_row_blocks(block_rows, graph.num_items)):
        stem = graph.path / "cooccurrence" / f"block-{block:05d}"
        indptr, indices, weights = (
            map_array(stem.with_suffix(f".{name}.npy")) for name in ("indptr", "indices", "weights")
        )
        first_row = row_range(block, block_rows, graph.num_items).start
        for begin in range(0, len(indices), EDGES_AT_A_TIME):
            end = min(begin + EDGES_AT_A_TIME, len(indices))
            # The rows with entries in [begin, end), and how many of these entries each has.
            first, last = np.searchsorted(indptr, [begin, end - 1], side="right") - 1
            bounds = np.clip(indptr[first : last + 2], begin, end)
            sources = np.repeat(first_row + np.arange(first, last + 1), np.diff(bounds))
            yield Edges(sources, np.array(indices[begin:end]), np.array(weights[begin:end]))


def _neighbor_edges(graph: Graph, modality: str) -> Iterator[Edges]:
    ids, scores, clusters = graph.neighbors(modality), graph.neighbor_scores(modality), graph.clusters(modality)
    rows = max(1, EDGES_AT_A_TIME // ids.shape[1])
    for first in range(0, len(ids), rows):
        targets = np.asarray(ids[first : first + rows])
        # A missing item's list holds the item itself, so missing items are found by their cluster, -1.
        kept = (targets >= 0) & (np.asarray(clusters[first : first + rows]) >= 0)[:, None]
        sources = first + np.repeat(np.arange(len(targets)), kept.sum(axis=1))
        yield Edges(sources, targets[kept], np.asarray(scores[first : first + rows])[kept])
