"""Ranks validation and test with a checkpoint of a finished run, and writes the result file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from configs.loading import load_config
from configs.schema import Config
from distributed.checkpoints.index import RANKING_GRAPH
from distributed.checkpoints.run_storage import RunStorage
from distributed.inference.restore import restore
from distributed.inference.scoring import Scorer
from distributed.inference.split_results import rank_splits, upload_ranks
from distributed.inputs import Inputs
from distributed.telemetry import Track, unwatched, versions
from distributed.world import World
from evaluation.result_settings import differing_settings, score_settings, settings_suffix
from storage.durable_files import write_text
from storage.plain_json import json_text


def evaluate(config: Config, world: World, checkpoint: str, track: Track = unwatched) -> dict[str, Any]:
    """Rank valid and test with a checkpoint and return the result; rank 0 writes it to `evaluation_path`.

    Rank 0 also saves the rank of every target, see `rank_splits`.
    """
    inputs, sharded, step = restore(config, checkpoint, world)
    scorer = Scorer(sharded=sharded, inputs=inputs, config=config, world=world, track=track)
    path = evaluation_path(config, checkpoint, inputs) if world.is_first else None
    splits = rank_splits(scorer, step, path)
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
    if path is not None:
        storage = RunStorage(config.run or "")
        write_text(path, json_text(result, indent=1) + "\n")
        upload_ranks(storage, path)
        storage.push([path.name])
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
