"""Export a graph or a run for other programs: python jobs/export.py --run RUN --what items --output items.parquet"""

from __future__ import annotations

from pathlib import Path

import click

from contracts.errors import InputError
from contracts.terminal import shows_bars
from distributed.inputs import open_graph
from distributed.job_paths import absolute, absolute_file
from graph_builder.exports import KINDS, export
from jobs.cli import check_output, check_suffix, job, validate

_SUFFIXES = {"npz": (".npz",), "parquet": (".parquet",), "edge_index": (".pt", ".pth"), "npy": (".npy",)}
_OF_A_RUN = {"items": ("parquet", "npy"), "users": ("parquet", "npy"), "model": ("pt2", "onnx")}


@click.command()
@click.option("--graph", metavar="GRAPH", help="graph folder or URI of jobs/build_graph.py; or give --run")
@click.option("--run", metavar="RUN", help="run folder or URI of jobs/train.py; or give --graph")
@click.option(
    "--what",
    required=True,
    metavar="NAME",
    help="of a graph: cooccurrence, or neighbors:MODALITY; of a run: items or users (their vectors), or model (the "
    "encoder of users, the items' vectors, and the rule of scores)",
)
@click.option(
    "--to",
    type=click.Choice([*KINDS, "npy", "pt2", "onnx"]),
    help="a graph's matrix: npz for scipy.sparse.load_npz, parquet with columns source, target, weight, or edge_index "
    "for torch.load and PyTorch Geometric; vectors: parquet with columns item or user, and vector, or npy for np.load, "
    "with the ids beside it; model: pt2 for torch.export.load, or onnx  [default: by the suffix of OUTPUT]",
)
@click.option(
    "--output", required=True, metavar="FILE", help="file to write, with the suffix of its format; for model, a folder"
)
@click.option(
    "--checkpoint", metavar="STEP", default="best", show_default=True, help="of a run: latest, best or a step's number"
)
@click.option("--overwrite", is_flag=True, help="replace an earlier export at OUTPUT")
@job
def main(
    graph: str | None, run: str | None, what: str, to: str | None, output: str, checkpoint: str, overwrite: bool
) -> None:
    """Write a graph's matrix, or a run's vectors or model, to files that other programs read, in bounded memory."""
    if (graph is None) == (run is None):
        raise InputError(f"{'--graph and --run' if graph else '--graph'}: give either --graph GRAPH or --run RUN")
    target = absolute_file("output", output)
    assert target is not None
    if graph is not None:
        _export_graph(graph, what, to, target, overwrite)
    else:
        assert run is not None
        _export_run(run, checkpoint, what, to, target, overwrite)


def _export_graph(graph: str, what: str, to: str | None, target: str, overwrite: bool) -> None:
    kind = to or _format_of(target, tuple(KINDS))
    if kind not in KINDS:
        raise InputError(f"--to {kind}: is a format of --run; for a graph name one of {', '.join(KINDS)}")
    folder = absolute("graph", graph)
    assert folder is not None
    check_suffix(Path(target), f"a file of --to {kind}", *_SUFFIXES[kind])
    opened = open_graph(folder)
    opened.validate()
    count = export(opened, what, kind, Path(target), overwrite)
    print(f"wrote {target}: {what} of {folder} as {kind}, {opened.num_items:,} items, {count:,} edges")


def _export_run(run: str, checkpoint: str, what: str, to: str | None, target: str, overwrite: bool) -> None:
    # Imported here, because loading a model takes seconds and a graph needs none.
    from distributed.output import local_bar
    from distributed.telemetry import unwatched
    from serving import exports
    from serving.loading import load

    if what not in _OF_A_RUN:
        raise InputError(f"--what {what}: of a run, name one of {', '.join(_OF_A_RUN)}")
    kind = to or ("pt2" if what == "model" else _format_of(target, _OF_A_RUN[what]))
    if kind not in _OF_A_RUN[what]:
        raise InputError(f"--to {kind}: cannot hold --what {what}; name one of {', '.join(_OF_A_RUN[what])}")
    path = Path(target)
    if what == "model":
        from serving.model_export import check_folder, export_model

        check_folder(path, overwrite)
        predictor = load(run, checkpoint, "cpu")
        validate(predictor.ranking.scorer.inputs)
        export_model(predictor, kind, path)
        print(f"wrote {target}: the user encoder as {kind}, the items' vectors, and score.json with the rule of scores")
        return
    check_suffix(path, f"a file of --to {kind}", *_SUFFIXES[kind])
    is_earlier = exports.is_vector_table if kind == "parquet" else exports.is_vector_array
    check_output(path, overwrite, is_earlier, "not a file of vectors with their ids")
    predictor = load(run, checkpoint)
    validate(predictor.ranking.scorer.inputs)
    vectors = exports.item_vectors(predictor) if what == "items" else exports.user_vectors(predictor)
    write = exports.write_parquet if kind == "parquet" else exports.write_npy
    try:
        write(vectors, path, local_bar if shows_bars() else unwatched)
    except OSError as error:
        raise exports.not_written(error, path) from None
    also = f", and {exports.ids_path(path)} with their ids" if kind == "npy" else ""
    print(f"wrote {target}: {vectors.count:,} vectors of {vectors.width} numbers, of checkpoint {predictor.step}{also}")


def _format_of(target: str, choices: tuple[str, ...]) -> str:
    """Return the format that a file's suffix belongs to, if it is among the choices."""
    suffix = Path(target).suffix.lower()
    for name in choices:
        if suffix in _SUFFIXES.get(name, ()):
            return name
    raise InputError(f"--output {target}: its suffix {suffix!r} names no format; add --to {' or --to '.join(choices)}")


if __name__ == "__main__":
    main()
