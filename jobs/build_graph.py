"""Build the item graph of a dataset: python jobs/build_graph.py --config C --set dataset=D --set graph=G"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from configs.loading import load_config
from configs.places import listed, shown
from configs.schema import Config
from contracts.errors import InputError
from contracts.modalities import check_modality_name
from contracts.terminal import shows_bars
from data.dataset import Dataset
from data.sampling.user_share import UserShare
from distributed.job_paths import absolute_file, resolve_paths
from distributed.run_location import check_cpus, named_address
from graph_builder.build import build_graph, check_buildable, check_centers, shaping_parameters
from graph_builder.build_inputs import ArraySource, GraphSource, OfChosenUsers
from graph_builder.executor import SerialExecutor
from graph_builder.graph import graph_fingerprint
from jobs.build_plan import comparison, nearest_folder, plan_options, print_plan
from jobs.cli import HomePath, NamedPath, config_options, job, verbose_option
from storage.object_cache import locked, published, remote_manifest, work_folder
from storage.uris import is_uri

if TYPE_CHECKING:
    from graph_builder.ray_tasks import RayExecutor

# Raises an InputError if some process of the build does not see a folder; see `check_seen_by_all_nodes`.
FolderCheck = Callable[[Path, str], None]


@click.command()
@verbose_option
@job
@config_options
@click.option(
    "--features",
    type=NamedPath(),
    multiple=True,
    metavar="[NAME=]FILE",
    help="features of a modality, instead of a dataset: .npy [items, width], float16 or float32; may be repeated",
)
@click.option(
    "--sequences",
    type=HomePath(),
    metavar="FILE",
    help="histories, instead of a dataset: Parquet or Arrow, one row per user, column `items` (list<int>), optionally "
    "`train_end` (length of the training part)",
)
@click.option(
    "--num-items",
    type=click.IntRange(min=1),
    help="number of items, where neither a dataset nor --features gives it [default: largest id in --sequences, + 1]",
)
@click.option(
    "--executor",
    "place",
    type=click.Choice(["auto", "ray", "serial"]),
    default="auto",
    show_default=True,
    help="where the build runs. ray: as tasks on a cluster; serial: in this process, one task after another, without "
    "Ray, and on one GPU if there is one; auto: ray if Ray is installed, else serial",
)
@click.option("--compare", is_flag=True, help="after the build, print its times beside those that --plan predicts")
@plan_options
def main(
    config_path: str | None,
    overrides: tuple[str, ...],
    features: tuple[str, ...],
    sequences: str | None,
    num_items: int | None,
    place: str,
    compare: bool,
    plan: dict[str, Any] | None,
) -> None:
    """Build the item graph of a dataset: co-occurrence, neighbours and interest centres.

    Co-occurrence is counted in the training part of each sequence; with training.user_share, of the sequences of
    those users whom seed chooses. Repeat the command to continue an interrupted build.
    If the data or the parameters differ from those of the interrupted build, it starts again from the beginning.
    """
    config = resolve_paths(load_config(config_path, overrides))
    _check_one_dataset(config)
    for file in (*features, *([sequences] if sequences else [])):
        if "://" in file:
            raise InputError(f"{file}: object storage is not supported for features and sequences; name a local file")
    if plan is not None:
        source = (
            _open_source(config, features, sequences, num_items) if _is_named(config, features, sequences) else None
        )
        print_plan(source, num_items, config, **plan)
        return
    if not isinstance(config.graph, str):
        raise InputError("graph: not set; add --set graph=FOLDER")
    source = _open_source(config, features, sequences, num_items)
    if isinstance(source, Dataset):
        source.validate()
    _check_before_ray(source, config.graph, config)
    users = UserShare(config.training.user_share, config.seed)
    if not users.is_all:
        source = OfChosenUsers(source, users.chosen(source))

    options = config.graph_options
    with _executor(place, config) as (executor, check_folder):
        manifest = _build(source, config.graph, config, executor, check_folder)
    if compare:
        print(comparison(source, config, executor))

    modalities = [
        f"{name} ({stats['num_present']:,} items, {options.num_neighbors} neighbours, {stats['num_centers']} centres)"
        for name, stats in manifest["modalities"].items()
    ]
    print(
        f"wrote graph {config.graph}: {manifest['num_items']:,} items, "
        f"{manifest['cooccurrence']['num_pairs_kept']:,} co-occurrences, {', '.join(modalities) or 'no modality'}"
    )


@contextmanager
def _executor(place: str, config: Config) -> Iterator[tuple[RayExecutor | SerialExecutor, FolderCheck]]:
    """Yield the executor that `--executor` names, and the check that each of its processes sees a folder.

    Raises:
        InputError: Ray is asked for and is not installed or cannot be joined, or a GPU is asked for and is missing.
    """
    has_ray = importlib.util.find_spec("ray") is not None
    if place == "ray" and not has_ray:
        raise InputError("--executor ray: Ray is not installed; install it, or use --executor serial")
    if place == "serial" or not has_ray:
        setting, address = named_address(config.cluster)
        if address:
            raise InputError(
                f"{setting}={address}: the build would run in this process; leave the address out, or "
                + ("leave out --executor serial" if has_ray else "install Ray and use --executor ray")
            )
        executor = SerialExecutor(config.graph_options.backend)
        if shows_bars() or place == "auto":
            print(f"building the graph in this process, on {'a GPU' if executor.gpus else 'the CPU'}", flush=True)
        yield executor, lambda _folder, _what: None
        return
    from jobs.ray_build import check_seen_by_all_nodes, on_ray

    with on_ray(config) as ray_executor:
        yield ray_executor, check_seen_by_all_nodes


def _build(
    source: GraphSource,
    graph: str,
    config: Config,
    executor: RayExecutor | SerialExecutor,
    check_folder: FolderCheck,
) -> dict[str, Any]:
    """Build the graph in the folder `graph`; if `graph` is a URI, in a working folder of this node, then upload it.

    Raises:
        InputError: as `build_graph`, or the URI holds another graph, or some node does not see the folder.
    """
    options, seed, share = config.graph_options, config.seed, config.training.user_share
    if not is_uri(graph):
        check_folder(Path(graph), f"graph={graph}")
        return build_graph(source, graph, options, seed, executor, user_share=share)
    if (existing := remote_manifest(graph)) is not None:
        parameters = shaping_parameters(options, share)
        if existing.get("fingerprint") == graph_fingerprint(source.fingerprint, parameters, seed):
            return existing
        raise InputError(f"graph={graph}: holds a graph of other data or parameters; delete it or name another URI")
    folder = work_folder(graph)
    check_folder(folder, f"graph={graph}: is built in the folder MDSREC_CACHE, and its {folder.parent}")
    with locked(folder):
        manifest = build_graph(source, folder, options, seed, executor, user_share=share)
        published(folder, graph)
    return manifest


def _check_before_ray(source: GraphSource, graph: str, config: Config) -> None:
    """Check the options, the source and the folder before Ray starts, because starting Ray takes long.

    Raises:
        InputError: the folder holds something else, or the options do not fit the source or this machine.
    """
    options = config.graph_options
    check_cpus(config.cluster, f"graph_options.cpus_per_task={options.cpus_per_task}", options.cpus_per_task)
    check_buildable(source, work_folder(graph) if is_uri(graph) else graph, options)
    for name, facts in source.manifest["modalities"].items() if isinstance(source, Dataset) else ():
        check_centers(name, options.num_centers, facts["num_present"], source.num_items)


def _check_one_dataset(config: Config) -> None:
    """Refuse several datasets or graphs: each dataset has a graph of its own, which other runs can use too.

    Raises:
        InputError: there are several. The message has a command for each.
    """
    datasets, graphs = listed(config.dataset), listed(config.graph)
    if max(len(datasets), len(graphs)) <= 1:
        return
    if len(datasets) != len(graphs):
        graphs = tuple(f"GRAPH-{number}" for number in range(1, len(datasets) + 1))
    commands = "; ".join(
        f"jobs/build_graph.py --set dataset={dataset} --set graph={graph}"
        for dataset, graph in zip(datasets, graphs, strict=True)
    )
    one = f"dataset={shown(datasets)}" if len(datasets) > 1 else f"graph={shown(config.graph)}"
    raise InputError(
        f"{one}: a graph is built from one dataset; run the job once for each, with the same settings"
        + (f": {commands}" if commands else "")
    )


def _is_named(config: Config, features: tuple[str, ...], sequences: str | None) -> bool:
    return bool(config.dataset or features or sequences)


def _open_source(
    config: Config, features: tuple[str, ...], sequences: str | None, num_items: int | None
) -> GraphSource:
    """Return the dataset, or a source that reads the files of --features and --sequences.

    Raises:
        InputError: both or neither are given, or a file or the dataset cannot be read.
    """
    if not _is_named(config, features, sequences):
        raise InputError("dataset: not set; add --set dataset=FOLDER, --features FILE or --sequences FILE")
    if config.dataset is None:
        files = {name: absolute_file("features", file) for name, file in map(_named_file, features)}
        if len(files) < len(features):
            raise InputError(f"--features {' '.join(features)}: a modality is named twice; give each file its NAME=")
        listed = absolute_file("sequences", sequences) if sequences else None
        return ArraySource(features=files, sequences=listed, num_items=num_items, scratch=nearest_folder(config.graph))
    for flag, value in (("--features", features), ("--sequences", sequences), ("--num-items", num_items)):
        if value:
            raise InputError(
                f"{flag}: cannot be combined with dataset={shown(config.dataset)}; leave out {flag}, or the dataset"
            )
    return Dataset.open(shown(config.dataset))


def _named_file(value: str) -> tuple[str, str]:
    """Return modality and file of `NAME=FILE`; for a plain `FILE`, the modality is the file's name."""
    name, equals, file = value.partition("=")
    if not equals:
        name, file = Path(value).stem, value
    try:
        check_modality_name(name)
    except InputError as error:
        raise InputError(f"--features {value}: {error}; give it one with --features NAME=FILE") from None
    if not file:
        raise InputError(f"--features {value}: names no file; expected NAME=FILE or FILE")
    return name, file


if __name__ == "__main__":
    main()
