"""Paths mean the same in every command, and a leading `~` becomes the home folder exactly once."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from configs.loading import load_config
from data.dataset import Dataset
from distributed.job_paths import resolve_paths
from jobs.prepare_data import main as prepare_data
from jobs.prepare_data import prepare
from storage.paths import expand_home


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "home"


def test_a_tilde_is_the_home_folder(home):
    assert expand_home("~/a") == f"{home}/a"
    assert expand_home("/x/~/a") == "/x/~/a"
    assert expand_home("./a~") == "./a~"
    assert expand_home("./~a") == os.path.abspath("~a")  # a file name, which pyarrow would take for a home folder
    assert expand_home("s3://bucket/~") == "s3://bucket/~"


def test_it_is_in_configs_and_overrides(home, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("run: ~/runs/a\n")
    config = resolve_paths(load_config(str(path), ["dataset=~/data", "graph=rel"]))
    assert (config.run, config.dataset) == (f"{home}/runs/a", f"{home}/data")
    assert config.graph == os.path.abspath("rel")


def test_a_slash_at_the_end_is_no_part_of_a_name(tmp_path):
    config = load_config(
        None, [f"dataset=[{tmp_path}/A/,s3://bucket/B/]", "graph=s3://bucket/G/", f"run={tmp_path}/R/"]
    )
    config = resolve_paths(config)
    assert config.dataset == (f"{tmp_path}/A", "s3://bucket/B")
    assert (config.graph, config.run) == ("s3://bucket/G", f"{tmp_path}/R")


def test_a_dataset_is_written_and_read_there(home):
    (home / "raw.csv").write_text("user,item,timestamp\n" + "".join(f"u{n % 3},i{n},{n}\n" for n in range(12)))
    core = ["--min-user-interactions", "1", "--min-item-interactions", "1"]
    arguments = ["--format", "table", "--input", "~/raw.csv", "--output", "~/ds", *core]
    result = CliRunner().invoke(prepare_data, arguments)
    assert result.exit_code == 0, result.output
    assert Dataset.open("~/ds").num_interactions == 12
    assert prepare("synthetic", "~/made", num_users=20, num_items=30).path
    prepare("synthetic", "./~named", num_users=20, num_items=30)
    assert sorted(path.name for path in home.iterdir()) == ["ds", "made", "raw.csv"]
    assert [path.name for path in Path.cwd().iterdir()] == ["~named"]
    assert Dataset.open("./~named").num_users == 20
