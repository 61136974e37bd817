"""The tasks `evaluate` and `recommend`: metrics and recommendations of a finished run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.loading import load_config, override_config
from configs.schema import Config
from contracts.errors import InputError
from distributed.checkpoints.checkpoint import Checkpoints
from distributed.checkpoints.index import RANKING_GRAPH, find_checkpoint
from distributed.checkpoints.run_storage import RunStorage
from distributed.host_memory import keep_freed_memory
from distributed.inference.scoring import SPLITS, Scorer, summarise
from distributed.inputs import Inputs, build_system, open_inputs
from distributed.sharding import ShardedSystem, shard
from distributed.telemetry import Track, unwatched, versions
from distributed.world import World
from evaluation.settings import differing_settings, score_settings, settings_suffix
from storage.durable_files import replacing, write_text
from storage.plain_json import json_text


def run_config(run: str, overrides: Iterable[str] = (), checkpoint: str = "best") -> Config:
    """Return the config that a run was trained with, with some knobs overridden.

    Args:
        run: the run's folder or URI.
        overrides: settings "name=value" of evaluation, cluster, dataset or graph.
        checkpoint: "latest", "best" or a step. For a URI, its progress record is then on this node.

    Raises:
        InputError: there is no run, or an override of any other knob.
    """
    storage = RunStorage(run)
    storage.pull(checkpoint, tensors=False)
    path = storage.local / "config.yaml"
    if not path.exists():
        raise InputError(f"run {run}: has no {path.name}; name a run folder that jobs/train.py wrote")
    config = override_config(load_config(str(path)), overrides, ("evaluation", "cluster", "dataset", "graph"))
    return config.model_copy(update={"run": run})


def restore(config: Config, checkpoint: str, world: World) -> tuple[Inputs, ShardedSystem, int | None]:
    """Open a run's inputs and fill its model from a checkpoint.

    Returns:
        The inputs, the filled system, and the step of the checkpoint. The step is None for a model without
        parameters, which has no checkpoint.
    """
    assert config.run is not None
    if world.device.type == "cpu":
        keep_freed_memory()
    inputs = open_inputs(config)
    sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
    if not (sharded.dense_parameters or sharded.sharding):
        return inputs, sharded, None
    checkpoints = Checkpoints(config.run, world)
    progress, _ = checkpoints.load(checkpoint, sharded, inputs.fingerprints, weights_only=True)
    return inputs, sharded, progress.step


def check_restorable(config: Config, checkpoint: str) -> None:
    """Raise the errors that a rank of `evaluate` or `recommend` would raise, before any rank is started.

    Raises:
        InputError: the run's dataset or graph is gone or damaged, or there is no such checkpoint.
    """
    assert config.run is not None
    inputs = open_inputs(config)
    if build_system(config, inputs).recommender.needs.id_rows:
        find_checkpoint(str(RunStorage(config.run).local), checkpoint, inputs.fingerprints)


def evaluate(config: Config, world: World, checkpoint: str, track: Track = unwatched) -> dict[str, Any]:
    """Rank valid and test with a checkpoint and return the result; rank 0 writes it to `evaluation_path`."""
    inputs, sharded, step = restore(config, checkpoint, world)
    scorer = Scorer(sharded=sharded, inputs=inputs, config=config, world=world, track=track)
    splits: dict[str, dict[str, Any]] = {split: summarise(scorer.rank(split), inputs, config) for split in SPLITS}
    result = {
        "model": config.model.name,
        "checkpoint_step": step,
        **{split: found.pop("metrics") for split, found in splits.items()},
        "settings": score_settings(config.evaluation),
        "details": splits,
        "num_workers": world.size,
        "fingerprints": inputs.result_fingerprints,
        "versions": versions(),
    }
    if world.is_first:
        path = evaluation_path(config, checkpoint, inputs)
        write_text(path, json_text(result, indent=1) + "\n")
        RunStorage(config.run or "").push([path.name])
    return result


def evaluation_path(config: Config, checkpoint: str, inputs: Inputs) -> Path:
    """Return the file that `evaluate` writes. For a run at a URI, the file is then uploaded too.

    With the run's own settings, the name is evaluation-<checkpoint>.json. Otherwise the name also states the settings
    that differ, so that a result never replaces one of other settings.
    """
    assert config.run is not None
    run = RunStorage(config.run).local
    own = load_config(str(run / "config.yaml"))
    differing = differing_settings(own.evaluation, config.evaluation)
    graph = inputs.result_fingerprints.get(RANKING_GRAPH)
    recorded = _recorded_fingerprints(run).get(RANKING_GRAPH)
    # Runs of earlier versions do not record this graph. They were ranked with the graph that their config names.
    if graph != recorded and not (recorded is None and own.reads_graph):
        differing["graph"] = "none" if graph is None else graph[:12]
    return run / f"evaluation-{checkpoint}{settings_suffix(differing)}.json"


def _recorded_fingerprints(run: Path) -> dict[str, str]:
    """Return the fingerprints that a finished run recorded with its metrics; none for an unfinished run."""
    try:
        return dict(json.loads((run / "metrics.json").read_text())["fingerprints"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def recommend(
    config: Config,
    world: World,
    checkpoint: str,
    k: int,
    output: str,
    mask_history: bool,
    track: Track = unwatched,
) -> None:
    """Write the k best next items of every user to a Parquet file, one row per user and rank, best first.

    Columns: `user` and `item` (source ids, strings), `rank` (int32, from 1) and `score` (float32). Rows are written to
    a temporary file as they are computed. The complete file is renamed to `output`.

    Args:
        config: the settings of the run.
        world: this rank's place.
        checkpoint: "latest", "best" or a step.
        k: how many items per user.
        output: the file to write.
        mask_history: whether items of a user's history are left out.
        track: shows progress.
    """
    inputs, sharded, _ = restore(config, checkpoint, world)
    scorer = Scorer(sharded=sharded, inputs=inputs, config=config, world=world, track=track)
    lists = scorer.recommend(k, mask_history)
    if not world.is_first:
        for _ in lists:  # every rank must take part in the collectives that compute the lists
            pass
        return
    user_names = inputs.dataset.user_source_ids()
    item_names = inputs.dataset.item_source_ids()
    schema = pa.schema([("user", pa.string()), ("rank", pa.int32()), ("item", pa.string()), ("score", pa.float32())])
    with replacing(Path(output), one_writer=True) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for users, ids, scores in lists:
            rows, columns = np.nonzero(ids >= 0)
            table = {
                "user": user_names.take(pa.array(users[rows])).cast(pa.string()),
                "rank": (columns + 1).astype(np.int32),
                "item": item_names.take(pa.array(ids[rows, columns])).cast(pa.string()),
                "score": scores[rows, columns].astype(np.float32),
            }
            writer.write_table(pa.table(table, schema=schema))
    Path(f"{output}.unfinished").unlink(missing_ok=True)  # an earlier version leaves this file when it is killed
