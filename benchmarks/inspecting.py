"""Measure jobs/inspect_data.py beside one read of all bytes: python benchmarks/inspecting.py --users 1700000

The dataset is synthetic, with 12 interactions for each user on average. The floor is `Dataset.verify_fingerprint`,
which reads and hashes every byte. Memory is the greatest anonymous resident memory, which leaves the mapped pages of
the dataset's files out: the system takes these back when it needs them. A thread reads it every 20 ms.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
from tabulate import tabulate

from data.dataset import Dataset, write_dataset
from data.prepare.synthetic import synthetic_content
from data.prepare.synthetic_spec import SyntheticSpec
from experiments.inspection.inspect import inspect_dataset


def _anonymous_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def measured(function: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of a call, and the greatest anonymous memory during it in MiB."""
    peak, ended = [_anonymous_mib()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], _anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    function()
    seconds = time.perf_counter() - start
    ended.set()
    watcher.join()
    return seconds, peak[0]


@click.command()
@click.option("--users", default=100_000, show_default=True, help="users of the synthetic dataset")
@click.option("--items", default=200_000, show_default=True, help="items of the synthetic dataset")
def main(users: int, items: int) -> None:
    """Make a dataset, read it in each way, and print a table."""
    with tempfile.TemporaryDirectory() as folder:
        spec = SyntheticSpec(num_users=users, num_items=items)
        write_dataset(f"{folder}/dataset", synthetic_content(spec))
        data = Dataset.open(f"{folder}/dataset")
        size = sum(data.manifest["bytes"].values())
        ways = {
            "read and hash all bytes (floor)": data.verify_fingerprint,
            "check all values, and the floor": data.validate,
            "compute all facts": lambda: inspect_dataset(data),
        }
        rows = [(name, *measured(way)) for name, way in ways.items()]
        print(f"{data.num_interactions:,} interactions, {size / 2**20:,.0f} MiB")
        print(tabulate(rows, ("", "seconds", "anonymous MiB"), floatfmt=".1f"))


if __name__ == "__main__":
    main()
