"""examples/quickstart.ipynb runs from its first cell to its last."""

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
