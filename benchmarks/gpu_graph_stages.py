"""The stages of `gpu_suite.py` that test the CUDA kernels and build a graph on the GPU."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.hashed_training import long_histories
from configs.schema import GraphConfig
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from kernels.backend import array_module
from tests.graph_builder.small_dataset import SmallDataset, content

_TESTS = "tests/kernels/cuda"
_SOFTMAX_TESTS = "tests/kernels/softmax"
# Kernels whose threads share lists; compute-sanitizer looks for threads that write to the same place.
_SHARED_LISTS = f"{_TESTS}/test_lists.py"
# Largest difference of the softmax kernel's gradients from float64, relative to the largest; in TF32 1.6e-3 is usual.
_SOFTMAX_BOUND = 1e-2


def kernels(device: torch.device, small: bool) -> dict[str, Any]:
    """Run the tests of the CUDA kernels on the GPU, and those of the list kernels under compute-sanitizer too.

    The small form only collects the tests, because `make test` runs them on the CPU anyway.
    """
    on_gpu = device.type == "cuda"
    marker = ["-m", "gpu" if on_gpu else "not gpu"]
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *marker]
    checks = {"tests": _ends_well([*tests, _TESTS, *(["--collect-only"] if small else [])])}
    sanitizer = shutil.which("compute-sanitizer")
    if on_gpu and sanitizer:
        for tool in ("memcheck", "racecheck"):
            command = [sanitizer, "--tool", tool, "--error-exitcode", "9", *tests, _SHARED_LISTS]
            checks[tool] = _ends_well(command)
    return {"checks": checks, "figures": {"compute-sanitizer": "found" if sanitizer else "not on this machine"}}


def graph(device: torch.device, small: bool) -> dict[str, Any]:
    """Build a graph of 100,000 items x 384 on the CPU and on the GPU, and compare its files byte for byte."""
    num_items, width = (600, 32) if small else (100_000, 384)
    backends = {"cpu": "cpu", "gpu": "cuda" if device.type == "cuda" else "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        source = _source(Path(folder), num_items, width)
        seconds, digests = {}, {}
        for name, backend in backends.items():
            options = GraphConfig(backend=backend, num_centers=8 if small else 16)
            began = time.perf_counter()
            build_graph(source, Path(folder) / name, options, 0, SerialExecutor(options.backend))
            seconds[f"{name} seconds"] = time.perf_counter() - began
            digests[name] = {
                file: hashlib.sha256(held).hexdigest() for file, held in content(Path(folder) / name).items()
            }
    checks = {file: digest == digests["gpu"].get(file) for file, digest in digests["cpu"].items()}
    return {"checks": checks, "figures": {**seconds, "files": len(checks)}}


def cosine(device: torch.device, small: bool) -> dict[str, Any]:
    """Measure the cosine search at 1M x 384, and at 10M x 512 as far as time goes, beside the matrix product."""
    if device.type == "cpu":
        return {"checks": {}, "figures": {"on a CPU": "python benchmarks/graphs.py measures it"}}
    from benchmarks import fused_scores
    from benchmarks.graphs_gpu import measure

    fused = fused_scores.measure(array_module("cuda"))
    print(json.dumps(fused), flush=True)
    figures, checks = {"131072x384 fused loop over GEMM": fused["triangle_over_gemm"]}, {}
    found = measure(array_module("cuda"), 10.0 if small else 90.0)
    print(json.dumps(found, default=float), flush=True)
    for size in ("1000000x384", "10000000x512"):
        for name, run in found[size].items():
            if isinstance(run, dict) and "seconds_over_gemm" in run:
                figures[f"{size} {name} over GEMM"] = float(run["seconds_over_gemm"])
                if run["best_items_listed"] is not None:
                    checks[f"{size} {name}"] = run["best_items_listed"] == 1.0
    return {"checks": checks, "figures": figures}


def softmax(device: torch.device, small: bool) -> dict[str, Any]:
    """Run the tests of the softmax kernel, and measure it beside torch's operators and the matrix products."""
    if importlib.util.find_spec("triton") is None:
        return {"checks": {}, "figures": {"Triton": "is not installed"}}
    on_gpu, checks = device.type == "cuda", {}
    if on_gpu:
        checks["tests"] = _ends_well([sys.executable, "-m", "pytest", "-q", "-m", "gpu", _SOFTMAX_TESTS])
    size = ["--small"] if small else ["--seconds", "20"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.softmax_gpu", *size],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, **({} if on_gpu else {"TRITON_INTERPRET": "1"})},
    )
    print(done.stdout, flush=True)
    figures: dict[str, float] = {}
    for found in map(json.loads, done.stdout.splitlines()):
        name = f"d={found['width']} {found['precision']}"
        figures[f"{name} kernel over torch"] = found["kernel"]["ms"] / found["one_chunk"]["ms"]
        figures[f"{name} kernel over products"] = found["kernel"]["ms"] / found["gemms"]["ms"]
        figures[f"{name} error"] = found["kernel"]["error"]
        checks[name] = found["kernel"]["error"] <= _SOFTMAX_BOUND
    checks["measured"] = done.returncode == 0 and bool(figures)
    return {"checks": checks, "figures": figures}


def _source(folder: Path, num_items: int, width: int) -> SmallDataset:
    """Write the features of items around common centres, a tenth of them missing, and return them with sequences."""
    random = np.random.default_rng(0)
    centers = random.standard_normal((max(8, num_items // 200), width), dtype=np.float32)
    rows = random.standard_normal((num_items, width), dtype=np.float32)
    rows += centers[random.integers(0, len(centers), num_items)]
    rows[::10] = 0
    (folder / "features").mkdir()
    np.save(folder / "features/text.npy", rows)
    data = long_histories(num_items, num_items, 12)
    return SmallDataset(
        path=str(folder),
        fingerprint="synthetic",
        num_items=num_items,
        modalities=("text",),
        items=data.items,
        offsets=data.offsets,
        train_end=data.train_end,
    )


def _ends_well(command: list[str]) -> bool:
    """Return whether a pytest ends well, and has run at least one test unless it only collects them.

    Pytest's status tells that it collected none, but not that it skipped all.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print("\n".join(done.stdout.splitlines()[-15:]), flush=True)
    ran = "--collect-only" in command or re.search(r"[1-9]\d* passed", done.stdout) is not None
    return done.returncode == 0 and ran
