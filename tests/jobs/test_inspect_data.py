"""jobs/inspect_data.py prints the report, writes the page and the facts, and replaces nothing but its own files."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner

import mdsrec
from jobs import inspect_data
from jobs.inspect_data import facts_json
from tests.jobs.bad_input.case import message_of

DOCS = Path(__file__).parents[2] / "docs" / "inspecting.md"
# The command of docs/inspecting.md that makes the dataset whose report the page shows.
SHOWN = {"num_users": 300, "num_items": 120, "seed": 3}


def typed(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(inspect_data.main, list(arguments))
    assert result.exit_code == status, result.output + repr(result.exception)
    return result.output


def test_files_are_written_once_and_replaced_when_asked(folders: Path, tmp_path: Path) -> None:
    page, facts = tmp_path / "page.html", tmp_path / "facts.json"
    asked = ("--dataset", f"{folders}/dataset", "--output", str(page), "--json", str(facts))
    said = typed(*asked)
    assert said.endswith(f"wrote {page}\nwrote {facts}\n")
    first = page.read_text(encoding="utf-8"), facts.read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["facts.json", "page.html"]
    assert "add --overwrite" in message_of(typed(*asked, status=2))
    typed(*asked, "--overwrite")
    assert (page.read_text(encoding="utf-8"), facts.read_text(encoding="utf-8")) == first
    facts.write_text('{"surprises": []}')
    assert f"--json {facts}: exists and is not a file of this job" in message_of(typed(*asked, "--overwrite", status=2))


def test_the_function_returns_the_facts_that_the_command_writes(folders: Path, tmp_path: Path) -> None:
    facts = mdsrec.inspect_data(f"{folders}/dataset")
    typed("--dataset", f"{folders}/dataset", "--json", str(tmp_path / "facts.json"))
    written = (tmp_path / "facts.json").read_text(encoding="utf-8")
    assert written == facts_json(facts)
    assert json.loads(written) == json.loads(json.dumps(asdict(facts)))
    with pytest.raises(mdsrec.InputError, match="no such folder"):
        mdsrec.inspect_data(str(tmp_path / "none"))


def test_the_docs_show_what_the_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mdsrec.prepare_data("synthetic", "DATASET", **SHOWN)
    text = DOCS.read_text(encoding="utf-8")
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in SHOWN.items())
    assert f"python jobs/prepare_data.py --format synthetic {options} --output DATASET" in " ".join(text.split())
    (shown,) = re.findall(r"```text\n(.*?)```", text, flags=re.S)
    said = typed("--dataset", "DATASET").replace(str(tmp_path) + "/", "/data/")
    for part in filter(None, (part.strip("\n") for part in shown.split("[…]\n"))):
        assert part in said
