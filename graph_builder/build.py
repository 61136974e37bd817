"""Build a graph: check the inputs, compute co-occurrence, then each modality, and write the manifest last."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import GraphConfig
from contracts.errors import InputError
from graph_builder import progress
from graph_builder.build_inputs import GraphSource, feature_path
from graph_builder.executor import Executor
from graph_builder.graph import (
    KIND,
    LAYOUT_FIELDS,
    SCHEMA_VERSION,
    USER_SHARE,
    Graph,
    graph_fingerprint,
    local_folder,
    read_manifest,
)
from graph_builder.integrity import checksum
from graph_builder.stages.clusters import build_clusters
from graph_builder.stages.cooccurrence import PAIRS_PER_TASK, build_cooccurrence, largest_gap
from graph_builder.stages.injection import FeatureSpec, find_rows, inject
from graph_builder.stages.neighbors import build_neighbors, chosen_precision, default_rows_per_task
from graph_builder.work_folder import WorkFolder, check_folder, write_json
from kernels.backend import Backend, array_module
from storage.array_file import save_array
from storage.manifest import MANIFEST

log = logging.getLogger(__name__)

# Independent directions have a mean cosine of 0. On Amazon Scientific, MiniLM's text features have .23 and CLIP's
# image features .60. Above .9, one common vector makes up most of every row. The cosines of neighbours and of any two
# items then differ by less than .1, and the order of neighbours is largely the encoder's noise.
_LARGE_MEAN_COSINE = 0.9


def build_graph(
    dataset: GraphSource,
    path: str | Path,
    options: GraphConfig,
    seed: int,
    executor: Executor,
    pairs_per_task: int = PAIRS_PER_TASK,
    user_share: float = 1.0,
) -> dict[str, Any]:
    """Build the item graph of a dataset in a folder and return the graph's manifest.

    Only the training parts of sequences are read. If an earlier call with the same dataset and parameters was
    interrupted, its finished blocks are kept. If the parameters differ, the build starts afresh and logs the
    differences. If the folder holds a finished graph with the same parameters, that graph is checked and returned.

    `user_share` is recorded: the share of the users whose training sequences the source has (`OfChosenUsers`).

    If standard error is not a terminal, a line of progress is logged every half minute (`progress`).

    Raises:
        InputError: features that are not finite, more centres than items with the modality, a folder that holds
            other files, or an error of a stage.
    """
    with progress.reporting():
        try:
            return _build(dataset, local_folder(path), options, seed, executor, pairs_per_task, user_share)
        finally:
            executor.release()  # what comes next, such as a training, may need the GPUs


def _build(
    dataset: GraphSource,
    folder: Path,
    options: GraphConfig,
    seed: int,
    executor: Executor,
    pairs_per_task: int,
    user_share: float,
) -> dict[str, Any]:
    check_folder(folder)
    parameters = shaping_parameters(options, user_share)
    fingerprint = graph_fingerprint(dataset.fingerprint, parameters, seed)
    if (built := _built(folder, fingerprint)) is not None:
        return built
    if dataset.num_items < 1:
        raise InputError(f"dataset {dataset.path}: holds no items; prepare it again")
    # All checks of the input come before any change of the folder.
    largest_gap(dataset, options)
    if options.backend == "cuda":
        for _ in executor.run_blocks(_check_backend, [options.backend], on_gpu=True):
            pass
    features = {m: feature_path(dataset, m) for m in dataset.modalities}
    present = {m: _find_present(m, features[m], dataset.num_items, options, executor) for m in features}
    identity: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "dataset": {"fingerprint": dataset.fingerprint},
        "parameters": parameters,
        "seed": seed,
        "layout": _layout(dataset.num_items, options, executor, pairs_per_task),
    }
    work = WorkFolder.start(folder, identity)
    specs = []
    for m, file in features.items():
        specs.append(
            FeatureSpec(
                modality=m,
                features=file,
                work=work,
                num_items=dataset.num_items,
                block_rows=options.block_rows,
                backend=options.backend,
            )
        )
        save_array(specs[-1].present, present[m])
    cooccurrence = build_cooccurrence(dataset, work, options, executor, pairs_per_task)
    manifest = {
        **identity,
        "kind": KIND,
        "fingerprint": fingerprint,
        "dataset": {"path": str(dataset.path), "fingerprint": dataset.fingerprint},
        "num_items": dataset.num_items,
        "cooccurrence": cooccurrence,
        "modalities": {
            spec.modality: {"num_present": int(present[spec.modality].sum())}
            | _build_modality(
                spec, options, cooccurrence["block_rows"], identity["layout"]["rows_per_task"], seed, executor
            )
            for spec in specs
        },
        "finished": True,
    }
    progress.begin("checksum")
    manifest["checksum"] = checksum(folder, manifest)
    write_json(folder / MANIFEST, manifest)
    work.remove()
    return manifest


def check_buildable(dataset: GraphSource, path: str | Path, options: GraphConfig) -> None:
    """Make those checks of `build_graph` that read no features, before an executor is started.

    Raises:
        InputError: a folder that holds other files, no items, or gaps that are too large to count (`largest_gap`).
    """
    check_folder(local_folder(path))
    if dataset.num_items < 1:
        raise InputError(f"dataset {dataset.path}: holds no items; prepare it again")
    largest_gap(dataset, options)


def check_centers(modality: str, num_centers: int, num_present: int, num_items: int) -> None:
    """Check that a modality has at least as many items with features as centres.

    Raises:
        InputError: it has fewer.
    """
    if num_present == 0:
        raise InputError(
            f"modality {modality!r}: no item has features (all rows are zero); leave it out of the dataset, or prepare "
            "the dataset again with its features"
        )
    if num_centers > num_present:
        raise InputError(
            f"graph_options.num_centers={num_centers}: only {num_present} of {num_items} items have "
            f"features in modality {modality!r}; lower num_centers or leave the modality out of the dataset"
        )


def _layout(num_items: int, options: GraphConfig, executor: Executor, pairs_per_task: int) -> dict[str, Any]:
    """Return how the work is split. A build can only be continued with the same values."""
    return {
        "block_rows": options.block_rows,
        "pairs_per_task": pairs_per_task,
        "rows_per_task": options.rows_per_task or default_rows_per_task(num_items, executor.gpus),
        "precision": chosen_precision(options, executor.gpus > 0),
    }


def shaping_parameters(options: GraphConfig, user_share: float = 1.0) -> dict[str, Any]:
    """Return the knobs that decide a graph's content, without those that decide how or where it is computed.

    Graphs of all users are older than `user_share`, so it is among them only below 1.
    """
    few = {} if user_share == 1.0 else {USER_SHARE: user_share}
    return options.model_dump(mode="json", exclude=set(LAYOUT_FIELDS)) | few


def _built(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return the manifest if the folder holds the finished graph with this fingerprint, undamaged; else None."""
    if not (folder / MANIFEST).exists():
        return None
    try:
        if read_manifest(folder)["fingerprint"] != fingerprint:
            return None  # WorkFolder.start logs what differs
        graph = Graph.open(folder)
        progress.begin("checking the finished graph")
        graph.validate()
    except InputError as error:
        log.warning("graph %s: cannot be used as it is: %s", folder, error)
        return None
    log.info("graph %s: is already built", folder)
    WorkFolder(folder).remove()
    return graph.manifest


def _check_backend(backend: Backend) -> None:
    """Check the backend where blocks will run: workers may have a GPU when the driver has none."""
    array_module(backend)


def _find_present(
    modality: str, features: Path, num_items: int, options: GraphConfig, executor: Executor
) -> np.ndarray:
    rows = find_rows(modality, features, num_items, options.block_rows, executor)
    present = rows.present
    check_centers(modality, options.num_centers, int(present.sum()), num_items)
    if rows.mean_cosine is not None and rows.mean_cosine > _LARGE_MEAN_COSINE:
        log.warning(
            "warning: modality %r: the mean cosine of two items' features is %.3f, so neighbours are chosen by small "
            "differences; centre the features (subtract their mean) or whiten them, or use another encoder",
            modality,
            rows.mean_cosine,
        )
    return present


def _build_modality(
    spec: FeatureSpec,
    options: GraphConfig,
    cooccurrence_block_rows: int,
    rows_per_task: int,
    seed: int,
    executor: Executor,
) -> dict[str, Any]:
    inject(spec, cooccurrence_block_rows, options.mu, executor)
    clusters = build_clusters(spec, options, seed, executor)  # first, because neighbours are searched by cluster
    return build_neighbors(spec, options, executor, rows_per_task) | clusters
