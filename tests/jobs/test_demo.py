"""The demo's own work: what it deletes, and what it refuses to; how it shows a command and runs it."""

import pytest
from click.testing import CliRunner

from contracts.errors import InputError
from jobs import demo


def test_a_later_demo_deletes_what_an_earlier_one_wrote_and_nothing_else(tmp_path):
    root = demo._empty_folder(tmp_path / "demo")
    for name in ("dataset", "run-mdsrec", "mine"):
        (root / name).mkdir()
        (root / name / "file").touch()
    (root / "recommendations.parquet").touch()
    assert demo._empty_folder(root) == root
    assert sorted(path.name for path in root.iterdir() if path.name != demo._MARK) == ["mine"]
    assert (root / "mine" / "file").exists()


def test_a_folder_that_no_demo_wrote_is_refused_and_stays(tmp_path):
    (tmp_path / "dataset").mkdir()
    with pytest.raises(InputError, match="holds files that no demo wrote; name a new folder"):
        demo._empty_folder(tmp_path)
    assert (tmp_path / "dataset").is_dir()
    (tmp_path / "file").touch()
    refused = CliRunner().invoke(demo.main, ["--output", str(tmp_path / "file")])
    assert refused.exit_code == 2
    assert "no demo wrote" in refused.output


def test_a_command_is_shown_and_run(tmp_path, capsys):
    options = f"--format synthetic --num-users 30 --num-items 20 --output '{tmp_path}/a b'"
    demo._run(f"prepare_data {options}")
    assert f"$ python jobs/prepare_data.py {options}\n" in capsys.readouterr().out
    assert (tmp_path / "a b" / "manifest.json").exists()
