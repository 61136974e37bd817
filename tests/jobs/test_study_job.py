"""jobs/study.py as a person types it, on a real local Ray."""

import json

import pytest
import ray
from click.testing import CliRunner

from jobs import prepare_data, study

BASE = """
graph_options: {num_centers: 4}
model: {dim: 8, num_heads: 2, max_length: 8}
training: {batch_size: 64, max_epochs: 1}
"""
STUDY = """
base: %s
title: Does the graph help?
seeds: [0]
variants: {mdsrec: {}, sasrec: {model.name: sasrec}}
baseline: sasrec
"""


@pytest.fixture
def arguments(tmp_path):
    made = CliRunner().invoke(
        prepare_data.main,
        ["--format", "synthetic", "--num-users", "100", "--num-items", "60", "--output", f"{tmp_path}/dataset"],
    )
    assert made.exit_code == 0, made.output
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "file.yaml").write_text(STUDY % (tmp_path / "base.yaml"))
    yield [
        *("--study", str(tmp_path / "file.yaml"), "--output", str(tmp_path / "study")),
        *("--set", f"dataset={tmp_path}/dataset"),
    ]
    ray.shutdown()


def test_a_study_is_trained_kept_and_reported(tmp_path, arguments):
    done = CliRunner().invoke(study.main, [*arguments, "--parallel", "2"])
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert f"wrote study {tmp_path}/study: results.md" in done.output
    results = json.loads((tmp_path / "study/results.json").read_text())
    assert [trial["variant"] for trial in results["trials"]] == ["mdsrec", "sasrec"]
    assert results["missing"] == []
    assert "2 of 2 trials are finished" in (tmp_path / "study/results.md").read_text()
    assert (tmp_path / "study/results.png").exists()
    assert len(list((tmp_path / "study/graphs").glob("*/manifest.json"))) == 1
    metrics = [json.loads(path.read_text()) for path in (tmp_path / "study/trials").glob("*/metrics.json")]
    assert [found["num_workers"] for found in metrics] == [1, 1]

    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "study/trials").rglob("*")}
    again = CliRunner().invoke(study.main, arguments)
    assert again.exit_code == 0, again.output
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "study/trials").rglob("*")} == written
    (tmp_path / "study/results.md").unlink()
    reported = CliRunner().invoke(study.main, [*arguments, "--report-only"])
    assert reported.exit_code == 0, reported.output
    assert (tmp_path / "study/results.md").exists()

    refused = CliRunner().invoke(study.main, [*arguments, "--set", "training.max_epochs=2"])
    assert refused.exit_code == 2
    assert "training.max_epochs=1 and the command says 2" in refused.output
