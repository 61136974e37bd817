"""Export a graph for other libraries: python jobs/export.py --graph G --what cooccurrence --to npz --output O.npz"""

from __future__ import annotations

from pathlib import Path

import click

from distributed.inputs import open_graph
from distributed.job_paths import absolute, absolute_file
from graph_builder.exports import KINDS, export
from jobs.cli import check_suffix, job

_SUFFIXES = {"npz": (".npz",), "parquet": (".parquet",), "edge_index": (".pt", ".pth")}


@click.command()
@click.option("--graph", required=True, metavar="GRAPH", help="graph folder or URI of jobs/build_graph.py")
@click.option("--what", required=True, metavar="NAME", help="the matrix to write: cooccurrence, or neighbors:MODALITY")
@click.option(
    "--to",
    required=True,
    type=click.Choice(list(KINDS)),
    help="npz: for scipy.sparse.load_npz; parquet: columns source, target, weight; edge_index: for torch.load and "
    "PyTorch Geometric",
)
@click.option("--output", required=True, metavar="FILE", help="file to write: .npz, .parquet, or .pt for edge_index")
@click.option("--overwrite", is_flag=True, help="replace an earlier export at OUTPUT")
@job
def main(graph: str, what: str, to: str, output: str, overwrite: bool) -> None:
    """Write one matrix of a graph to a file that other libraries read. Large matrices need little memory."""
    folder, target = absolute("graph", graph), absolute_file("output", output)
    assert folder is not None
    assert target is not None
    check_suffix(Path(target), f"a file of --to {to}", *_SUFFIXES[to])
    opened = open_graph(folder)
    opened.validate()
    count = export(opened, what, to, Path(target), overwrite)
    print(f"wrote {target}: {what} of {folder} as {to}, {opened.num_items:,} items, {count:,} edges")


if __name__ == "__main__":
    main()
