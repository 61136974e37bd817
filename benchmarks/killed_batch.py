"""Kill a batch of recommendations in the middle, continue it, and compare it with one that was not killed.

    python benchmarks/killed_batch.py --run RUN --histories 1000000

The histories are random items of the run's catalogue, 0 to 29 of them for each user. The job runs in one process. The
last line is a JSON object: whether both folders have the same bytes, how many parts there were at the kill, and the
seconds of the undisturbed job over those of one matrix product of as many users with all items.
"""

from __future__ import annotations

import filecmp
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.predictor import product
from jobs.cli import job
from serving.loading import load
from serving.predictor import Predictor

_ROOT = Path(__file__).resolve().parent.parent
_LONGEST, _K = 30, 20


def write_histories(predictor: Predictor, count: int, path: Path) -> None:
    """Write a table of random histories of a run's items."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, _LONGEST, count)
    items = pa.array(rng.integers(0, predictor.num_items, lengths.sum()))
    ids = pa.array(predictor.item_ids, pa.string()).take(items)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
    histories = pa.LargeListArray.from_arrays(offsets, ids)
    pq.write_table(pa.table({"user": np.char.add("v", np.arange(count).astype(str)), "history": histories}), path)


def parts_in(folder: Path) -> int:
    return len(list(folder.glob("part-*")))


@click.command()
@click.option("--run", required=True, metavar="RUN", help="run folder of jobs/train.py")
@click.option("--histories", "count", default=1_000_000, show_default=True, type=click.IntRange(min=1000))
@click.option("--folder", type=click.Path(file_okay=False), help="scratch space; default: a temporary one")
@job
def main(run: str, count: int, folder: str | None) -> None:
    """Run the job twice, once killed and continued, and print what was found."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        root = Path(scratch)
        predictor = load(run)
        write_histories(predictor, count, root / "histories.parquet")
        per_part = max(1, min(65_536, count // 12))
        command = [sys.executable, "jobs/recommend.py", "--run", str(Path(run).absolute()), "--k", str(_K),
                   "--histories", str(root / "histories.parquet"), "--users-per-part", str(per_part),
                   "--set", "cluster.num_workers=1"]  # fmt: skip
        killed = subprocess.Popen([*command, "--output", str(root / "killed")], cwd=_ROOT)
        parts = -(-count // per_part)
        while parts_in(root / "killed") < parts // 2 and killed.poll() is None:
            time.sleep(0.05)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        at_the_kill = parts_in(root / "killed")
        subprocess.run([*command, "--output", str(root / "killed")], cwd=_ROOT, check=True)
        begin = time.perf_counter()
        subprocess.run([*command, "--output", str(root / "calm")], cwd=_ROOT, check=True)
        seconds = time.perf_counter() - begin
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        names = sorted(path.name for path in (root / "calm").iterdir())
        _, different, missing = filecmp.cmpfiles(root / "calm", root / "killed", names, shallow=False)
        is_equal = not different and not missing and names == sorted(p.name for p in (root / "killed").iterdir())
        users = torch.from_numpy(predictor.user_vectors([[0]])).expand(min(count, 10_000), -1).contiguous()
        items, options = torch.from_numpy(predictor.item_vectors()), predictor.config.evaluation
        torch.set_num_threads(1)
        begin = time.perf_counter()
        product(users, items, options.user_batch, options.item_block)
        floor = (time.perf_counter() - begin) * count / len(users)
        print(
            f"{count:,} histories in {parts} parts: {seconds:.0f} s, at most {memory:.2f} GiB; one matrix product of "
            f"all users and items takes {floor:.0f} s; killed with {at_the_kill} parts and continued: "
            f"{'the same bytes' if is_equal else 'NOT the same bytes'}"
        )
        print(
            json.dumps(
                {"equal": is_equal, "parts_at_the_kill": at_the_kill, "job_over_gemm": round(seconds / floor, 1)}
            )
        )


if __name__ == "__main__":
    main()
