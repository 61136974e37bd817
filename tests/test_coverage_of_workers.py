"""Records of a process that is killed, as Ray kills its workers."""

import os
import subprocess
import sys
import time

import pytest
from coverage import CoverageData, exceptions

from tests.packages import ROOT

PROGRAM = "first = 1\nprint('begun', flush=True)\ninput()\n"


def lines_saved(folder, program):
    """Lines of the program that are in any record, while another process may still be writing it."""
    found = set()
    for file in folder.glob(".coverage*"):
        try:
            data = CoverageData(str(file))
            data.read()
        except exceptions.DataError:
            continue
        found |= set(data.lines(str(program)) or ())
    return found


@pytest.mark.timeout(60)
def test_what_a_worker_has_run_is_saved_before_it_is_killed(tmp_path):
    program = tmp_path / "default_worker.py"
    program.write_text(PROGRAM)
    (tmp_path / "rc").write_text("[run]\nparallel = true\nplugins = tests.coverage_of_workers\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    process = subprocess.Popen(
        [sys.executable, "-m", "coverage", "run", "--rcfile=rc", str(program)], cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == b"begun\n"
        while not lines_saved(tmp_path, program):  # ends by the test's timeout
            time.sleep(0.1)
        process.kill()
    assert lines_saved(tmp_path, program) == {1, 2, 3}
