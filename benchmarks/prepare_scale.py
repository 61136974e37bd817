"""Measure the preparation of raw interactions, and beside it DuckDB doing the same: python benchmarks/prepare_scale.py

The benchmark writes random interactions to a Parquet file, with Zipf's law for items and one in a hundred rows given
twice. Each engine of jobs/prepare_data.py, and DuckDB, then runs in processes of its own. DuckDB drops duplicates, has
its 5-core, numbers users and items in order of first appearance, and sorts. Its rows are compared with the dataset.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.dataset import Dataset

_ROOT = Path(__file__).resolve().parent.parent
_CHUNK = 1 << 20
_POLL_SECONDS = 0.1

# The arguments are the input, the output, a folder for temporary files, and the number of threads.
_DUCKDB = """
import sys
import duckdb
source, target, scratch, threads = sys.argv[1:]
sql = duckdb.connect(scratch + "/work.duckdb").execute
sql(f"SET threads = {threads}")
sql("SET memory_limit = '8GB'")
sql(f"SET temp_directory = '{scratch}'")
sql(f"CREATE TABLE raw AS SELECT user, item, timestamp, file_row_number AS pos "
    f"FROM read_parquet('{source}', file_row_number = true)")
sql("CREATE TABLE users AS SELECT user, min(pos) AS pos FROM raw GROUP BY user")
sql("CREATE TABLE items AS SELECT item, min(pos) AS pos FROM raw GROUP BY item")
sql("CREATE TABLE u AS SELECT user, row_number() OVER (ORDER BY pos) - 1 AS u FROM users")
sql("CREATE TABLE i AS SELECT item, row_number() OVER (ORDER BY pos) - 1 AS i FROM items")
sql("CREATE TABLE rows AS SELECT u, i, timestamp, min(pos) AS pos "
    "FROM raw JOIN u USING (user) JOIN i USING (item) GROUP BY u, i, timestamp")
sql("DROP TABLE raw")
count = sql("SELECT count(*) FROM rows").fetchone()[0]
while True:
    sql("CREATE TABLE kept AS SELECT * FROM rows WHERE u IN (SELECT u FROM rows GROUP BY u HAVING count(*) >= 5) "
        "AND i IN (SELECT i FROM rows GROUP BY i HAVING count(*) >= 5)")
    sql("DROP TABLE rows")
    sql("ALTER TABLE kept RENAME TO rows")
    before, count = count, sql("SELECT count(*) FROM rows").fetchone()[0]
    if before == count:
        break
sql("CREATE TABLE nu AS SELECT u, row_number() OVER (ORDER BY u) - 1 AS user FROM (SELECT DISTINCT u FROM rows)")
sql("CREATE TABLE ni AS SELECT i, row_number() OVER (ORDER BY i) - 1 AS item FROM (SELECT DISTINCT i FROM rows)")
sql(f"COPY (SELECT user, item, timestamp FROM rows JOIN nu USING (u) JOIN ni USING (i) ORDER BY user, timestamp, pos) "
    f"TO '{target}' (FORMAT parquet)")
"""


@click.command()
@click.option("--rows", default=20_000_000, show_default=True, type=click.IntRange(min=1000))
@click.option("--users", default=1_000_000, show_default=True, type=click.IntRange(min=1))
@click.option("--items", default=200_000, show_default=True, type=click.IntRange(min=1))
@click.option("--engines", default="serial,ray", show_default=True, help="engines of jobs/prepare_data.py")
@click.option(
    "--duckdb", default=sys.executable, metavar="PYTHON", help="interpreter that has duckdb; empty: leave it out"
)
@click.option("--threads", default=1, show_default=True, help="threads of DuckDB")
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), help="scratch space; default: a temporary one"
)
def main(rows: int, users: int, items: int, engines: str, duckdb: str, threads: int, folder: Path | None) -> None:
    """Print time, rows a second, and the peak memory of each process. The last line is JSON."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        root = Path(scratch)
        source = root / "interactions.parquet"
        write_interactions(source, rows, users, items)
        print(f"{rows:,} rows, {source.stat().st_size / 2**20:,.0f} MiB of Parquet", flush=True)
        figures, fingerprints = {}, set()
        for engine in filter(None, engines.split(",")):
            output = root / engine
            command = [sys.executable, "jobs/prepare_data.py", "--format", "table", "--input", str(source)]
            command += ["--output", str(output), "--engine", engine]
            figures[engine] = measured(engine, command, rows)
            fingerprints.add(Dataset.open(str(output)).fingerprint)
        if duckdb:
            (root / "temporary").mkdir()
            command = [
                duckdb,
                "-c",
                _DUCKDB,
                str(source),
                str(root / "sorted.parquet"),
                str(root / "temporary"),
                str(threads),
            ]
            figures["duckdb"] = measured(f"duckdb, {threads} threads", command, rows)
            for engine in list(figures)[:1]:
                print(f"same rows as {engine}: {equal(Dataset.open(str(root / engine)), root / 'sorted.parquet')}")
        print(f"different fingerprints: {len(fingerprints)}")
        print(json.dumps({"rows": rows, "fingerprints": len(fingerprints), **figures}))
        for path in root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_interactions(file: Path, rows: int, users: int, items: int) -> None:
    """Write random interactions in order of input, which is not the order of time."""
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, items + 1) ** 0.9
    totals = np.cumsum(weights) / weights.sum()
    with pq.ParquetWriter(
        file, pa.schema({"user": pa.string(), "item": pa.string(), "timestamp": pa.int64()})
    ) as writer:
        for start in range(0, rows, _CHUNK):
            count = min(_CHUNK, rows - start)
            # A square makes some users far more active than others.
            columns = [
                (rng.random(count) ** 2 * users).astype(np.int64) * 7919 % users,
                np.searchsorted(totals, rng.random(count)) * 104_729 % items,
                rng.integers(1_500_000_000, 1_700_000_000, count),
            ]
            again = rng.integers(0, count, count // 100)
            for column in columns:
                column[again - 1] = column[again]
            texts = [pc.binary_join_element_wise(letter, pa.array(column).cast(pa.string()), "")
                     for letter, column in zip("UB", columns, strict=False)]  # fmt: skip
            writer.write_table(pa.table({"user": texts[0], "item": texts[1], "timestamp": columns[2]}))


def measured(name: str, command: list[str], rows: int) -> dict[str, float | dict[str, float]]:
    """Run a command; return its seconds, core seconds and, by process, the peak memory of the largest, in GiB."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL)
    found: dict[tuple[int, str], tuple[int, float]] = {}
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, found, ended))
    watcher.start()
    status = process.wait()
    seconds = time.perf_counter() - begin
    ended.set()
    watcher.join()
    assert status == 0, f"{name} ended with {status}"
    largest: dict[str, float] = defaultdict(float)
    for (_, title), (peak, _) in found.items():
        largest[title] = max(largest[title], round(peak / 2**20, 2))
    cores = sum(used for _, used in found.values())
    shown = ", ".join(f"{title} {peak:.2f}" for title, peak in sorted(largest.items()) if peak >= 0.3)
    print(
        f"{name}: {seconds:.1f} s, {rows / seconds:,.0f} rows/s, {cores:.1f} s of cores, peak GiB: {shown}", flush=True
    )
    return {
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds),
        "core_seconds": round(cores, 1),
        "peak_gib": max(largest.values()),
    }


def _watch(root: int, found: dict[tuple[int, str], tuple[int, float]], ended: threading.Event) -> None:
    """Keep what a process and all that it has started use: peak resident memory (VmHWM, KiB) and seconds of cores."""
    ticks = os.sysconf("SC_CLK_TCK")
    while not ended.wait(_POLL_SECONDS):
        states = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                state = dict(line.split(":", 1) for line in (path / "status").read_text().splitlines())
                times = (path / "stat").read_text().rsplit(")", 1)[1].split()
            except (OSError, ValueError):
                continue
            states[int(path.name)] = (state, (int(times[11]) + int(times[12])) / ticks)
        for pid, (state, used) in states.items():
            above = pid
            while above in states and above != root:
                above = int(states[above][0]["PPid"])
            if above == root and "VmHWM" in state:
                # A worker of Ray changes its name with each task.
                name = "driver" if pid == root else state["Name"].strip().split("::")[0]
                found[pid, name] = int(state["VmHWM"].split()[0]), used


def equal(dataset: Dataset, file: Path) -> bool:
    """Return whether the rows of a Parquet file, in their order, are those of a dataset."""
    assert dataset.timestamps is not None
    start = 0
    for batch in pq.ParquetFile(file).iter_batches(_CHUNK):
        stop = start + batch.num_rows
        users = np.searchsorted(dataset.offsets, np.arange(start, stop), side="right") - 1
        expected = (users, dataset.items[start:stop], dataset.timestamps[start:stop])
        if not all(np.array_equal(batch.column(n).to_numpy(), column) for n, column in enumerate(expected)):
            return False
        start = stop
    return start == dataset.num_interactions


if __name__ == "__main__":
    main()
