"""The jobs that only print: models, knobs and config."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from configs.knobs import all_knobs
from configs.loading import dump_config, load_config
from configs.schema import Config
from configs.systems.registry import SYSTEMS
from jobs import config, knobs, models

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "kept"


def output_of(command, *arguments: str, columns: int = 100) -> str:
    result = CliRunner().invoke(command, arguments, env={"COLUMNS": str(columns)})
    assert result.exit_code == 0, result.output
    return result.output


def names_in(shown: str) -> list[str]:
    return [line.partition(" = ")[0] for line in shown.splitlines() if line and not line.startswith(" ")]


def rows_of(shown: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in shown.splitlines()[2:]}


def test_models_are_those_of_the_registry_with_what_they_need():
    shown = output_of(models.main)
    listed = [line.split()[0] for line in shown.splitlines()[2:] if not line.startswith(" ")]
    assert listed == list(SYSTEMS)
    ends = {
        line.split()[0]: line.rpartition("  ")[2].strip() for line in shown.splitlines() if line.split()[0] in SYSTEMS
    }
    assert ends == {
        "mdsrec": "training, graph", "sasrec": "training", "sasrecf": "training, features",
        "gru4rec": "training", "gru4recf": "training, features", "fdsa": "training, features",
        "unisrec": "training, features", "mmmlp": "training, features", "missrec": "training, features",
        "msm4sr": "training, features", "bert4rec": "training",
        "itemknn": "graph", "popularity": "nothing",
    }  # fmt: skip
    assert max(map(len, shown.splitlines())) <= 100


def test_all_knobs_are_listed_in_the_order_of_the_schema():
    assert names_in(output_of(knobs.main)) == [name for name, _ in all_knobs(Config)]


@pytest.mark.parametrize("columns", [80, 100])
def test_knobs_fit_the_terminal(columns):
    assert max(map(len, output_of(knobs.main, columns=columns).splitlines())) <= columns


def test_a_knob_says_type_default_meaning_and_what_a_continued_run_does():
    assert output_of(knobs.main, "num_neighbors").startswith(
        "graph_options.num_neighbors = 5\n"
        "    type:      whole number, at least 1\n"
        "    meaning:   H: number of neighbours per item and modality\n"
        "    on resume: the graph must stay: one built with another value is refused\n"
    )


def test_a_word_filters_names_and_meanings():
    assert "training.learning_rate" in names_in(output_of(knobs.main, "Learning-Rate"))
    found = names_in(output_of(knobs.main, "history"))
    assert "evaluation.mask_history" in found
    assert "model.max_length" in found, "its meaning has the word"
    assert "model.dim" not in found


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("mask_histroy", "did you mean evaluation.mask_history?"),
        ("model.dimm", "did you mean model.dim?"),
        ("neighbuors", "did you mean"),
        ("xyzzyx", "leave WORD out to see all"),
    ],
)
def test_a_word_that_finds_nothing_names_the_nearest(word, hint):
    result = CliRunner().invoke(knobs.main, [word])
    assert result.exit_code == 2
    assert result.output.startswith(f"error: knobs {word}: no knob has this in its name or meaning; {hint}")


def test_a_runs_config_shows_what_is_not_as_the_defaults():
    shown = rows_of(output_of(config.main, str(KEPT / "run-mdsrec")))
    assert shown["model.dim"] == ["64", "8"]
    assert "seed" not in shown
    assert "cluster.cpus_per_worker" not in shown, "1.0 equals the default, 1"
    everything = rows_of(output_of(config.main, str(KEPT / "run-mdsrec"), "--all"))
    assert everything["seed"] == ["0", "0"]
    others = tuple(f"model.{system}." for system in SYSTEMS if system != "mdsrec")
    assert list(everything) == [name for name, _ in all_knobs(Config) if not name.startswith(others)]


def test_knobs_of_other_systems_are_not_a_runs(tmp_path):
    (tmp_path / "config.yaml").write_text(dump_config(load_config(None, ["model.name=sasrec", f"dataset={tmp_path}"])))
    shown = rows_of(output_of(config.main, str(tmp_path), "--all"))
    assert not any(name.startswith("model.mdsrec.") for name in shown)
    assert rows_of(output_of(config.main, str(tmp_path))) == {
        "dataset": ["null", str(tmp_path)], "model.name": ["mdsrec", "sasrec"],
    }  # fmt: skip


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    result = CliRunner().invoke(config.main, [str(tmp_path)])
    assert result.exit_code == 2
    assert result.output == f"error: run {tmp_path}: no config.yaml in it; name the run folder of jobs/train.py\n"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("line", ["jobs/knobs.py", "jobs/config.py tests/kept/run-mdsrec --all", "jobs/models.py"])
def test_a_reader_that_stops_early_sees_no_traceback(line):
    """`head` closes the pipe after one line, and `true` before the first. Neither may cause an error message."""
    for reader in ("head -n 1", "true"):
        script = f"{sys.executable} {line} | {reader}"
        done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
        assert done.stderr == ""
