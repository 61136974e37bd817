"""Check and measure everything that runs on a GPU, in nine minutes: python -m benchmarks.gpu_suite

Each stage runs in a process of its own with a time limit, and prints one line of JSON when it ends. A stage that fails
or takes too long does not stop the others. The last lines are a table. Status 0: no check of any stage failed.

It needs one GPU and few packages (docs/gpu.md). `--dry-run` runs small forms of all stages on the CPU.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import torch

from contracts.text_table import text_table


@dataclass(frozen=True)
class Stage:
    """A stage of the suite.

    Attributes:
        seconds: its time limit.
        function: module and function that run it. The function gets the device and whether to run a small form, and
            returns {"checks": {name: passed}, "figures": {name: number or text}}.
        what: what it shows, in a few words.
    """

    seconds: int
    function: str
    what: str


STAGES = {
    "kernels": Stage(60, "benchmarks.gpu_graph_stages:kernels", "CUDA kernels equal their slow twins"),
    "graph": Stage(70, "benchmarks.gpu_graph_stages:graph", "a graph has the same bytes on CPU and GPU"),
    "softmax": Stage(60, "benchmarks.gpu_graph_stages:softmax", "the softmax kernel, and its time"),
    "gradients": Stage(60, "benchmarks.gpu_model_stages:gradients", "losses and gradients equal the CPU's"),
    "step": Stage(90, "benchmarks.gpu_model_stages:step", "time, launches, waits and memory of a step"),
    "resume": Stage(60, "benchmarks.gpu_model_stages:resume", "a resumed training, and ranks, equal"),
    "cosine": Stage(140, "benchmarks.gpu_graph_stages:cosine", "the cosine search beside the matrix product"),
}
_GRACE = 3.0  # seconds to end a process before it is killed


@click.command()
@click.option("--stages", default=",".join(STAGES), show_default=True, help="the stages to run, in this order")
@click.option("--dry-run", is_flag=True, help="run small forms on the CPU")
@click.option("--output", type=click.Path(dir_okay=False), help="file to append each stage's line of JSON to")
@click.option("--stage", hidden=True, help="run one stage in this process")
def main(stages: str, dry_run: bool, output: str | None, stage: str | None) -> None:
    """Run the stages one after the other."""
    device = torch.device("cpu") if dry_run else torch.device("cuda", 0)
    if stage is not None:
        print(json.dumps(_function(stage)(device, dry_run)), flush=True)
        return
    names = [name.strip() for name in stages.split(",")]
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        raise click.ClickException(f"--stages {unknown[0]}: is not a stage; the stages are {', '.join(STAGES)}")
    if not dry_run and not torch.cuda.is_available():
        raise click.ClickException("torch finds no GPU on this machine; --dry-run runs small forms on the CPU")
    records: list[dict[str, Any]] = []
    try:
        say({"machine": machine(device), "dry_run": dry_run}, output)
        for name in names:
            records.append(run_stage(name, dry_run))
            say(records[-1], output)
    except OSError as error:
        raise click.ClickException(f"--output {output}: cannot be written ({error.strerror}); name another") from None
    finally:
        print(table(records), flush=True)
        if dry_run:
            print("This was a dry run: small forms on the CPU. That a stage passed says that it runs.", flush=True)
    sys.exit(0 if all(record["passed"] for record in records) else 1)


def say(record: dict[str, Any], output: str | None) -> None:
    """Print a line of JSON, and append it to the file `output` if there is one."""
    line = json.dumps(record)
    print(line, flush=True)
    if output:
        with Path(output).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def run_stage(name: str, dry_run: bool) -> dict[str, Any]:
    """Run a stage in a process of its own and return its record; its output goes to stderr."""
    command = [sys.executable, "-m", "benchmarks.gpu_suite", "--stage", name, *(["--dry-run"] if dry_run else [])]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    record: dict[str, Any] = {"stage": name, "passed": False}
    try:
        printed, _ = process.communicate(timeout=STAGES[name].seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        record["error"] = f"took more than {STAGES[name].seconds} s"
    except BaseException:  # Ctrl-C, which the stage itself does not get
        _end(process)
        raise
    else:
        lines = printed.splitlines()
        sys.stderr.write("".join(line + "\n" for line in lines[:-1]))
        try:
            record |= json.loads(lines[-1])
            record["passed"] = all(record["checks"].values())
        except (IndexError, ValueError, KeyError, TypeError):
            record["error"] = f"ended with status {process.returncode} and without a result"
    record["seconds"] = round(time.perf_counter() - began, 1)
    return record


def table(records: list[dict[str, Any]]) -> str:
    """Return a line for each stage: what it shows, whether its checks passed, and its figures."""
    rows = []
    for record in records:
        failed = [name for name, passed in record.get("checks", {}).items() if not passed]
        state = record.get("error") or (f"FAILED: {', '.join(failed)}" if failed else "passed")
        figures = ", ".join(f"{name} {_shown(value)}" for name, value in record.get("figures", {}).items())
        rows.append((record["stage"], STAGES[record["stage"]].what, f"{record['seconds']:.0f}", state, figures))
    return text_table(rows, ["stage", "what it shows", "s", "checks", "figures"], right=[2])


def machine(device: torch.device) -> dict[str, Any]:
    """Return what the figures depend on: the GPU, and the versions of packages."""
    found: dict[str, Any] = {"python": sys.version.split()[0], "torch": torch.__version__, "cores": os.cpu_count()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gib": round(properties.total_memory / 2**30, 1), "cuda": torch.version.cuda}
    return found


def _function(name: str) -> Callable[[torch.device, bool], dict[str, Any]]:
    module, function = STAGES[name].function.split(":")
    found: Callable[[torch.device, bool], dict[str, Any]] = getattr(import_module(module), function)
    return found


def _end(process: subprocess.Popen[str]) -> None:
    """End a stage with the processes that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        os.killpg(process.pid, number)
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            continue
        return


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
