"""`mdsrec VERB ...` does the same as `python jobs/VERB.py ...`."""

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mdsrec.command import main

ROOT = Path(__file__).resolve().parents[2]
# A job is a module that can be run.
VERBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py") if "__main__" in path.read_text())


def invoke(*arguments: str):
    return CliRunner().invoke(main, arguments, prog_name="mdsrec")


def test_every_job_is_a_verb_and_nothing_else():
    assert {"train", "prepare_data", "models", "knobs", "config"} <= set(VERBS)
    assert sorted(main.list_commands(click.Context(main))) == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_the_jobs_own_command(verb):
    job = importlib.import_module(f"jobs.{verb}").main
    for typed in {verb, verb.replace("_", "-")}:
        assert main.get_command(click.Context(main), typed) is job
    shown = invoke(verb, "--help")
    assert shown.exit_code == 0
    assert shown.output.startswith(f"Usage: mdsrec {verb} ")
    assert shown.output.partition("\n")[2] == CliRunner().invoke(job, ["--help"]).output.partition("\n")[2]


def test_status_and_message_are_the_jobs():
    refused = invoke("train")
    assert refused.exit_code == 2
    assert refused.output.splitlines()[-1].startswith("error: run: not set")
    misused = invoke("train", "--sets", "a=b")
    assert misused.exit_code == 2
    assert "Try 'mdsrec train --help' for help." in misused.output


def test_the_list_of_verbs_says_what_each_does():
    shown = invoke("--help").output
    listed = [line.split()[0] for line in shown.partition("Verbs:")[2].splitlines() if line[2:3].strip()]
    assert listed[:5] == ["prepare_data", "inspect_data", "build_graph", "train", "evaluate"]
    assert sorted(listed) == VERBS
    assert "Train to early stopping" in shown
    assert "..." not in shown.partition("Verbs:")[2]
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("trian", "trian: no such verb; did you mean train?"),
        ("prepare-dat", "prepare-dat: no such verb; did you mean prepare_data?"),
        ("cli", "cli: no such verb; "),  # a module of jobs/ that is not a command
        ("xyzzy", "xyzzy: no such verb; the verbs are prepare_data, inspect_data, build_graph"),
    ],
)
def test_an_unknown_verb_is_refused_with_the_nearest(typed, expected):
    found = invoke(typed)
    assert found.exit_code == 2
    assert f"Error: {expected}" in found.output


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "mdsrec", "models"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "sasrecf" in done.stdout


def test_help_imports_no_verb():
    code = (
        "import sys, mdsrec.command as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith('jobs.') or m in ('torch', 'ray', 'pydantic')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
