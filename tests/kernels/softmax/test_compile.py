"""The softmax kernels compile for GPUs and keep their values in registers; Triton's wheel has all that this needs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.packages import ROOT

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed"),
]
# Arguments of `benchmarks.softmax_compile.report`: kernel, width, precision, architecture.
POINTS = [
    ("sum_over_columns", 64, "tf32", 90),
    ("sum_over_rows", 64, "tf32", 90),
    ("sum_over_columns", 300, "tf32", 90),
    ("sum_over_rows", 300, "tf32", 90),
    ("sum_over_columns", 300, "tf32", 80),
    ("sum_over_columns", 64, "bf16", 90),
    ("sum_over_columns", 64, "ieee", 90),
    ("mark_pairs", 75, "tf32", 90),
    ("sum_over_columns", 75, "tf32", 90),
    ("add_targets", 75, "tf32", 90),
    ("sum_over_rows", 75, "tf32", 90),
]
# Programs of a multiprocessor at a time, as `kernels.softmax.tiles` counts with.
PROGRAMS = {64: 2, 300: 1}


@pytest.fixture(scope="module")
def compiled() -> list[dict[str, Any]]:
    """The reports of all points, made in a process of its own, because kernels may be interpreted in this one."""
    code = """
import json, sys
from benchmarks.softmax_compile import SHARED, report
from kernels.softmax.tiles import tiles_of
for kernel, width, precision, architecture in json.load(sys.stdin):
    tiles = tiles_of(width, SHARED[architecture][0])
    print(json.dumps(report(kernel, width, precision, architecture, tiles)))
"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT)
    command, points = [sys.executable, "-c", code], json.dumps(POINTS)
    done = subprocess.run(command, cwd=ROOT, env=environment, input=points, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_point_compiles(compiled: list[dict[str, Any]]) -> None:
    assert [line["kernel"] for line in compiled] == [kernel for kernel, *_ in POINTS]


def test_loops_use_tensor_cores_and_keep_values_in_registers(compiled: list[dict[str, Any]]) -> None:
    found = [line for line in compiled if line["width"] != 75 and line["precision"] != "ieee"]
    assert len(found) == 6
    for line in found:
        assert line["stack"] == 0, line
        assert line["programs"] >= PROGRAMS[line["width"]], line
        assert line["tensor_cores"] == ("wgmma" if line["architecture"] == 90 else "mma"), line


def test_full_float32_has_no_tensor_cores_and_too_few_registers(compiled: list[dict[str, Any]]) -> None:
    """This is why the losses use the kernels in TF32 only. It also shows that both are noticed."""
    (line,) = [line for line in compiled if line["precision"] == "ieee"]
    assert line["stack"] > 100
    assert line["tensor_cores"] == "none"
