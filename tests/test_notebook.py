"""The notebooks in examples/ run from their first cell to their last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.ray
@pytest.mark.slow
def test_the_quickstart_runs() -> None:
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    printed = {
        cell.source: "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
    # A failing command prints an error; it does not raise an exception in the notebook.
    assert not [source for source, text in printed.items() if "error:" in text.lower()]
    (trained,) = (text for source, text in printed.items() if "train" in source and "mdsrec" in source.split("/")[-1])
    assert "wrote run" in trained
    (recommended,) = (source for source in printed if source.startswith("recommendations ="))
    (last,) = (cell for cell in notebook.cells if cell.source == recommended)
    assert "item" in last.outputs[0]["data"]["text/plain"]


@pytest.mark.slow
def test_own_data_runs_and_finds_the_planted_successor() -> None:
    notebook = nbformat.read(EXAMPLES / "own_data.ipynb", as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    (explained,) = (cell for cell in notebook.cells if "planted successor" in cell.source)
    planted, best = "".join(output.get("text", "") for output in explained.outputs).splitlines()[:2]
    assert best.startswith(f"1. {planted.removeprefix('planted successor: ')}: ")
    (shown,) = (cell for cell in notebook.cells if cell.source.endswith("\nlists"))
    assert "1 id in 1 of 3 histories is not in the catalogue" in shown.outputs[0]["data"]["text/plain"]
