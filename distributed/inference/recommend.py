"""Writes every user's best items to a Parquet file, with a checkpoint of a finished run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.schema import Config
from contracts.errors import InputError
from distributed.inference.restore import restore
from distributed.inference.scoring import Scorer
from distributed.telemetry import Track, unwatched
from distributed.world import World
from storage.durable_files import replacing


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
    try:
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
    except OSError as error:
        raise InputError(
            f"--output {output}: cannot be written ({error.strerror or error}); free space or change permissions"
        ) from None
    Path(f"{output}.unfinished").unlink(missing_ok=True)  # an earlier version leaves this file when it is killed
