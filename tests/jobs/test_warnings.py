"""A job prints warnings without a logger's prefix, and each note once."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Like a library that warns while it is imported: the root logger then has a handler with a prefix.
COMMAND = "import logging; logging.warning('first'); from jobs.train import main; main()"


@pytest.mark.long
def test_a_note_is_printed_as_it_is(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("model: {name: sasrec, mdsrec: {tau: 2.0}}\n")
    arguments = [sys.executable, "-c", COMMAND, "--config", str(preset)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = done.stderr.splitlines()
    assert done.returncode == 2
    assert f"note: {preset}: its section model.mdsrec is only for model.name=mdsrec and is ignored here" in lines
    assert any(line.startswith("error: run: not set") for line in lines)


NESTED = """
import logging
from jobs.cli import job
@job
def inner(): logging.getLogger("any").warning("note: a section is ignored")
@job
def outer(): inner(); inner()
outer()
inner()
"""


@pytest.mark.long
def test_a_job_that_runs_others_prints_a_note_once():
    done = subprocess.run([sys.executable, "-c", NESTED], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines() == ["note: a section is ignored"] * 2, "one by each command"
