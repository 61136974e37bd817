"""jobs/export.py --run: the files, and a folder from which PyTorch and NumPy, or ONNX Runtime, recommend."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner

from configs.schema import Config
from jobs import export
from serving.loading import load
from tests.serving.runs import trained
from tests.serving.test_exports import by_rule

K = 20


@pytest.fixture(scope="module")
def run(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    return trained(folders, tmp_path_factory.mktemp("trained") / "run", "missrec")


def invoke(*given: object, status: int = 0) -> str:
    result = CliRunner().invoke(export.main, [str(part) for part in given])
    assert result.exit_code == status, result.output + repr(result.exception)
    return result.output


def test_the_format_is_that_of_the_suffix(run: Config, folders: Path, tmp_path: Path) -> None:
    said = invoke("--run", run.run, "--what", "items", "--output", tmp_path / "i.parquet")
    assert "wrote" in said
    assert "70 vectors of 24 numbers, of checkpoint" in said
    said = invoke("--run", run.run, "--what", "users", "--output", tmp_path / "u.npy")
    assert f"and {tmp_path}/u.ids.parquet with their ids" in said
    said = invoke("--graph", folders / "graph", "--what", "neighbors:text", "--output", tmp_path / "n.pt")
    assert "as edge_index, 70 items" in said
    assert "add --overwrite" in invoke("--run", run.run, "--what", "users", "--output", tmp_path / "u.npy", status=2)
    invoke("--run", run.run, "--what", "users", "--output", tmp_path / "u.npy", "--overwrite")


@pytest.mark.long
@pytest.mark.parametrize("to", ["pt2", "onnx"])
def test_a_folder_suffices_to_recommend(run: Config, tmp_path: Path, to: str) -> None:
    folder = tmp_path / "model"
    invoke("--run", run.run, "--what", "model", "--to", to, "--output", folder)
    assert "exists; name another folder or add --overwrite" in invoke(
        "--run", run.run, "--what", "model", "--output", folder, status=2
    )
    rng = np.random.default_rng(5)
    histories = [rng.permutation(70)[:size].tolist() for size in rng.integers(1, 20, 300)]
    rule = json.loads((folder / "score.json").read_text())
    longest = rule["max_length"]
    lengths = np.array([min(len(history), longest) for history in histories])
    padded = np.zeros((len(histories), longest), dtype=np.int64)
    for row, history in enumerate(histories):
        padded[row, : lengths[row]] = history[-longest:]
    if to == "onnx":
        session = onnxruntime.InferenceSession(folder / "user_encoder.onnx")
        names = [one.name for one in session.get_inputs()]
        (users,) = session.run(None, dict(zip(names, (padded, lengths), strict=True)))
    else:
        np.savez(tmp_path / "in.npz", padded=padded, lengths=lengths)
        code = (
            "import numpy as np, torch\n"
            f"given = np.load({str(tmp_path / 'in.npz')!r})\n"
            f"encoder = torch.export.load({str(folder / 'user_encoder.pt2')!r}).module()\n"
            "found = encoder(torch.from_numpy(given['padded']), torch.from_numpy(given['lengths']))\n"
            f"np.save({str(tmp_path / 'out.npy')!r}, found.detach().numpy())\n"
        )
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
        users = np.load(tmp_path / "out.npy")
    hide = rule["mask_history"]["lists"]
    best, scores = by_rule(rule, users, np.load(folder / "item_vectors.npy"), histories, None, K, hide)
    found = load(str(run.run)).recommend(histories, K)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-4, atol=1e-4)
    differing = found.items != best
    assert np.abs(found.scores - scores)[differing].max(initial=0) < 1e-3
    assert differing.mean() < 0.01
    counts = np.load(folder / "popularity.npy")
    popular = load(str(run.run)).recommend([[]], K).items[0]
    assert np.lexsort((np.arange(len(counts)), -counts))[:K].tolist() == popular.tolist()
    named = tmp_path / f"m.{to}"
    assert f"its name cannot end in .{to}; name it m" in invoke(
        "--run", run.run, "--what", "model", "--output", named, status=2
    )
