"""Build an index of a run's items and measure it: python jobs/build_index.py --run RUN --kind hnsw --output INDEX"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
from click.core import ParameterSource
from tabulate import tabulate

from contracts.errors import InputError
from distributed.job_paths import absolute, absolute_file
from jobs.cli import job, validate
from serving.index.kinds import CLUSTERED, KINDS, IndexOptions, check_effort, default_effort
from serving.index.of_system import build_index_of
from serving.index.recall import recall
from serving.index.search import VectorIndex
from serving.loading import load
from serving.predictor import Predictor
from serving.results import Recommendations

# The kinds of an index that an option is for.
_KINDS_OF = {
    "links": ("hnsw",),
    "ef_construction": ("hnsw",),
    "nlist": CLUSTERED,
    "code_width": ("ivfpq",),
    "nbits": ("ivfpq",),
    "efforts": ("hnsw", *CLUSTERED),
}


@click.command()
@click.option("--run", required=True, metavar="RUN", help="run folder or URI of jobs/train.py")
@click.option("--output", required=True, metavar="INDEX", help="folder to write")
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="flat",
    show_default=True,
    help="flat is exact; hnsw, ivfflat and ivfpq are approximate and faster for large catalogues",
)
@click.option("--links", default=32, show_default=True, help="hnsw: links of each item (faiss's M)")
@click.option("--ef-construction", default=80, show_default=True, help="hnsw: candidates for links")
@click.option("--nlist", type=int, help="ivfflat, ivfpq: number of clusters  [default: by size]")
@click.option("--code-width", type=int, help="ivfpq: numbers of a vector for each code  [default: 4, 2 or 1]")
@click.option("--nbits", default=8, show_default=True, help="ivfpq: bits of a code")
@click.option(
    "--shard-items",
    default=1 << 20,
    show_default=True,
    type=click.IntRange(min=1),
    help="most items of a file; the build holds one file's items in memory",
)
@click.option("--effort", "efforts", type=click.IntRange(min=1), multiple=True,
              help="measure with this efSearch (hnsw) or nprobe (ivfflat, ivfpq); may be repeated  [default: 128, or a "
              "32nd of the clusters but at least 8]")  # fmt: skip
@click.option("--k", default=10, show_default=True, type=click.IntRange(min=1), help="length of the lists to measure")
@click.option(
    "--users", default=1000, show_default=True, type=click.IntRange(min=0), help="users of the dataset to measure with"
)
@click.option("--checkpoint", metavar="STEP", default="best", show_default=True, help="latest, best or a step's number")
@job
def main(
    run: str,
    output: str,
    k: int,
    users: int,
    kind: str,
    efforts: tuple[int, ...],
    shard_items: int,
    checkpoint: str,
    **options: object,
) -> None:
    """Build an index of a run's item vectors in bounded memory, and measure recall and time beside the exact ranking.

    Repeat the command to continue a build that was interrupted, or to measure a finished index once more.
    """
    _check_options(kind, efforts)
    folder, target = absolute("run", run), absolute_file("output", output)
    assert folder is not None
    assert target is not None
    if not Path(target).parent.is_dir():
        raise InputError(f"--output {target}: the folder that it is in does not exist; create that first")
    predictor = load(folder, checkpoint)
    validate(predictor.ranking.scorer.inputs)
    begin = time.perf_counter()
    try:
        manifest = build_index_of(
            predictor.ranking.scorer,
            target,
            options=IndexOptions(kind=kind, **options),  # type: ignore[arg-type]
            shard_items=shard_items,
            belongs_to=predictor.identity,
        )
    except OSError as error:
        raise InputError(
            f"--output {target}: cannot be written ({error.strerror or error}); finished shards are kept: free space "
            "or change permissions, and repeat the command"
        ) from None
    print(
        f"{target}: {manifest.num_items:,} items as {manifest.options.kind}, shards: {len(manifest.shards):,}, "
        f"{manifest.total_bytes / 2**20:,.1f} MiB, written in {time.perf_counter() - begin:.1f} s"
    )
    if users:
        _measure(predictor, target, k, users, efforts)


def _check_options(kind: str, efforts: tuple[int, ...]) -> None:
    """Check that no option of another kind was given.

    Raises:
        InputError: one was; or an effort is out of range.
    """
    context = click.get_current_context()
    given = [name for name in _KINDS_OF if context.get_parameter_source(name) == ParameterSource.COMMANDLINE]
    for name in given:
        if kind not in _KINDS_OF[name]:
            flag = "--effort" if name == "efforts" else f"--{name.replace('_', '-')}"
            raise InputError(
                f"{flag}: is an option of --kind {' or '.join(_KINDS_OF[name])}, not of {kind}; leave it out"
            )
    for effort in efforts:
        check_effort(effort)


def _measure(predictor: Predictor, index: str, k: int, users: int, efforts: tuple[int, ...]) -> None:
    """Print the lists' recall and time for users of the dataset: all of the catalogue, and with the index."""
    dataset = predictor.ranking.scorer.inputs.dataset
    lengths = np.diff(dataset.offsets)
    some = np.random.default_rng(0).permutation(np.flatnonzero(lengths > 0))[:users]
    histories = [dataset.items[dataset.offsets[u] : dataset.offsets[u + 1]] for u in np.sort(some)]
    exact, seconds = _timed(predictor, histories, k)
    rows = [["the whole catalogue", 1.0, 1.0, 1e3 * seconds / len(histories)]]
    options = VectorIndex.open(index).manifest.options
    for effort in efforts or (default_effort(options),):
        predictor.use_index(index, effort=effort or None)
        found, seconds = _timed(predictor, histories, k)
        name = options.kind + (f", effort {effort}" if effort else "")
        rows.append(
            [name, recall(found.items, exact.items), float(found.is_exact.mean()), 1e3 * seconds / len(histories)]
        )
    print(f"\n{len(histories):,} users of the dataset, lists of {k}, histories hidden:")
    headers = ["ranked by", f"of the exact lists' {k} items", "lists proven exact", "ms per user"]
    print(tabulate(rows, headers=headers, floatfmt=("", ".4f", ".3f", ".3f")))


def _timed(predictor: Predictor, histories: list[np.ndarray], k: int) -> tuple[Recommendations, float]:
    """Return the lists of all histories, and the seconds that they took after a first call."""
    predictor.recommend(histories[:1], k)
    begin = time.perf_counter()
    return predictor.recommend(histories, k), time.perf_counter() - begin


if __name__ == "__main__":
    main()
