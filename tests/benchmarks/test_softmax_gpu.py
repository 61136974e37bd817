"""benchmarks/softmax_gpu.py prints a line for each precision, and says so where there is no GPU."""

import importlib.util
import json

import pytest
import torch
from click.testing import CliRunner

from benchmarks.softmax_gpu import main


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_its_small_form_compares_the_kernel_with_torchs_operators():
    result = CliRunner().invoke(main, ["--small"])
    assert result.exit_code == 0, repr(result.exception)
    lines = [json.loads(line) for line in result.output.splitlines()]
    assert [line["precision"] for line in lines] == ["tf32", "float32"]
    for line in lines:
        assert line["gemms"]["ms"] > 0
        for name in ("kernel", "chunks", "one_chunk"):
            assert line[name]["ms"] > 0
            assert 0 < line[name]["error"] < 1e-5, name


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured():
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 0
    assert result.output == "nothing was measured: no GPU is visible\n"
