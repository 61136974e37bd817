"""From a finished run to metrics or recommendations, on any number of ranks."""

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
    """The config that a run was trained with; where it runs and how it is ranked may be overridden.

    Raises:
        InputError: there is no run there, or an override of what it learnt.
    """
    storage = RunStorage(run)
    storage.pull(checkpoint, tensors=False)
    path = storage.local / "config.yaml"
    if not path.exists():
        raise InputError(f"run {run}: no {path.name} in it; name the run folder of jobs/train.py")
    config = override_config(load_config(str(path)), overrides, ("evaluation", "cluster", "dataset", "graph"))
    return config.model_copy(update={"run": run})


def restore(config: Config, checkpoint: str, world: World) -> tuple[Inputs, ShardedSystem, int | None]:
    """Open a run's inputs and fill its model from a checkpoint; the step is None for a model that is not trained."""
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
    """Everything a rank of `evaluate` or `recommend` would refuse, refused before any is started.

    Raises:
        InputError: the run's dataset or graph is gone or damaged, or there is no such checkpoint.
    """
    assert config.run is not None
    inputs = open_inputs(config)
    if build_system(config, inputs).recommender.needs.id_rows:
        find_checkpoint(str(RunStorage(config.run).local), checkpoint, inputs.fingerprints)


def evaluate(config: Config, world: World, checkpoint: str, track: Track = unwatched) -> dict[str, Any]:
    """Rank valid and test with a checkpoint; rank 0 writes the result to `evaluation_path`."""
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
    """Where `evaluate` writes (a run at a URI has it there too).

    evaluation-<checkpoint>.json with the run's own settings. The name of a result of other settings says in what they
    differ, so that no result replaces one that was ranked otherwise.
    """
    assert config.run is not None
    run = RunStorage(config.run).local
    own = load_config(str(run / "config.yaml"))
    differing = differing_settings(own.evaluation, config.evaluation)
    graph = inputs.result_fingerprints.get(RANKING_GRAPH)
    recorded = _recorded_fingerprints(run).get(RANKING_GRAPH)
    # Versions that did not record it ranked with the graph of the run's own config.
    if graph != recorded and not (recorded is None and own.reads_graph):
        differing["graph"] = "none" if graph is None else graph[:12]
    return run / f"evaluation-{checkpoint}{settings_suffix(differing)}.json"


def _recorded_fingerprints(run: Path) -> dict[str, str]:
    """What a finished run says that its metrics were made from; nothing of an unfinished one."""
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
    """Write every user's top-k next items to a Parquet file, one row per (user, rank), best first.

    Columns: user string and item string (source ids), rank int32 (1-based), score float32. Rows are written as
    they are made, to a temporary name that becomes `output` when complete.
    """
    inputs, sharded, _ = restore(config, checkpoint, world)
    scorer = Scorer(sharded=sharded, inputs=inputs, config=config, world=world, track=track)
    lists = scorer.recommend(k, mask_history)
    if not world.is_first:
        for _ in lists:  # the collectives behind each list need every rank
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
    Path(f"{output}.unfinished").unlink(missing_ok=True)  # what a killed process of an earlier version left
