"""Encoding on a Ray cluster gives the bytes of one process, also if an actor is killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from threading import Thread

import pytest

from data.encoding.encode import EncodingJob, encode_items
from data.encoding.workers import Places
from tests.data.encoding import tiny_models
from tests.data.encoding.test_encode import encode, job_for, write_table
from tests.fingerprints import fingerprints


def on_ray(job: EncodingJob, workers: int = 2) -> None:
    from data.encoding import ray_parts

    places = Places(most_workers=workers)
    encode_items(job, places, overwrite=False, track=lambda loop, *_: loop, cluster=ray_parts)


@pytest.mark.ray
@pytest.mark.slow
def test_any_number_of_workers_writes_the_same_bytes(shared_ray: None, tmp_path: Path) -> None:  # noqa: ARG001
    write_table(tmp_path / "t.parquet")
    encode(tmp_path / "t.parquet", tmp_path / "serial")
    on_ray(job_for(tmp_path / "t.parquet", tmp_path / "out"))
    assert fingerprints(tmp_path / "out") == fingerprints(tmp_path / "serial")


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_actor_does_not_change_a_byte(shared_ray: None, tmp_path: Path) -> None:  # noqa: ARG001
    pytest.importorskip("sentence_transformers", reason="the extra encode is not installed")
    model = tiny_models.bert(tmp_path / "bert")
    write_table(tmp_path / "t.parquet", 600)
    options = {"spec": {"name": str(model)}, "rows_per_part": 4}
    encode(tmp_path / "t.parquet", tmp_path / "serial", **options)
    job = job_for(tmp_path / "t.parquet", tmp_path / "out", **options)
    killed: list[int] = []

    def kill() -> None:
        while len(list((job.work / "encoded").glob("0*.parquet"))) < 10:
            time.sleep(0.01)
        killed.append(_actor())
        os.kill(killed[0], signal.SIGKILL)

    killer = Thread(target=kill)
    killer.start()
    on_ray(job)
    killer.join()
    assert killed
    assert fingerprints(tmp_path / "out") == fingerprints(tmp_path / "serial")


def _actor() -> int:
    """Return the process of an actor of Ray Data in the cluster of this test."""
    from ray.util.state import list_actors

    actors = list_actors(filters=[("state", "=", "ALIVE")], detail=True)
    return next(actor.pid for actor in actors if "MapWorker" in actor.class_name)
