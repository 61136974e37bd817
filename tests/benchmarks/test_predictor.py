"""benchmarks/predictor.py ends with ratios to the matrix product, for one history and for many."""

import json

from click.testing import CliRunner

from benchmarks.predictor import main


def test_it_prints_ratios():
    result = CliRunner().invoke(main, ["--items", "1000", "--users", "30", "--dim", "8", "--repeats", "1"])
    assert result.exit_code == 0, repr(result.exception)
    lines = result.output.splitlines()
    found = json.loads(lines[-1])
    assert {"recommend_over_gemm_one", "recommend_over_gemm_many", "ranking_over_gemm_many"} <= set(found)
    assert found["recommend_over_gemm_one"] > 0
    assert lines[1].startswith("30 histories of 20 items, 1,000 items of width 8")
