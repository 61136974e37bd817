"""Which folders a training may use, and which knobs may differ when it continues a run."""

import pytest
import yaml

from configs.knobs import Decides
from configs.loading import dump_config, load_config
from contracts.errors import InputError
from distributed.checkpoints.run_folder import open_run_folder


def config_of(run, *more):
    return load_config(None, [f"run={run}", "model.name=mdsrec", *more])


def begun(run, config):
    run.mkdir()
    (run / "config.yaml").write_text(dump_config(config))


def test_a_new_or_empty_folder_is_a_runs(tmp_path):
    for left in ((), ("ray",), (".config.yaml.unfinished", "ray")):  # left by a process that was killed early
        run = tmp_path / f"run{len(left)}"
        assert open_run_folder(config_of(run)).local == run
        run.mkdir()
        for name in left:
            (run / name).touch()
        assert open_run_folder(config_of(run)).local == run


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: is a file; name a folder"):
        open_run_folder(config_of(tmp_path / "file"))
    with pytest.raises(InputError, match=r"file is a file, so no folder can be made in it"):
        open_run_folder(config_of(tmp_path / "file" / "run"))
    (tmp_path / "ray").touch()
    with pytest.raises(InputError, match=r"holds file and no config\.yaml, so it is not a run"):
        open_run_folder(config_of(tmp_path))
    with pytest.raises(InputError, match="run: not set"):
        open_run_folder(load_config(None, []))


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("seed", 7),
        ("model.dim", 32),
        ("model.name", "sasrec"),
        ("model.mdsrec.max_cooccurrences", 9),
        ("table.sharding", "row_wise"),
        ("training.learning_rate", 0.5),
        ("training.batch_size", 77),
        ("training.unit", "prefixes"),
        ("training.precision", "bfloat16"),
        ("training.negatives.draws", 13),
    ],
)
def test_a_knob_that_decides_what_is_learnt_is_refused(tmp_path, knob, value):
    begun(tmp_path / "run", config_of(tmp_path / "run"))
    changed = config_of(tmp_path / "run", f"{knob}={value}")
    with pytest.raises(InputError) as refused:
        open_run_folder(changed)
    assert f"was begun with {knob}=" in str(refused.value)
    assert f"and the command says {value};" in str(refused.value)


@pytest.mark.parametrize("knob", ["training.patience", "training.max_epochs", "training.max_steps"])
def test_when_training_stops_may_change_in_a_run_and_not_where_it_is_fixed(tmp_path, knob):
    begun(tmp_path / "run", config_of(tmp_path / "run"))
    changed = config_of(tmp_path / "run", f"{knob}=3")
    open_run_folder(changed)
    with pytest.raises(InputError, match=rf"was begun with {knob}=.*and the command says 3"):
        open_run_folder(changed, fixed={Decides.LENGTH})


@pytest.mark.parametrize(
    "setting", ["training.loader_workers=1", "training.checkpoint_steps=5", "cluster.num_workers=3"]
)
def test_a_knob_that_decides_speed_only_may_change(tmp_path, setting):
    begun(tmp_path / "run", config_of(tmp_path / "run"))
    open_run_folder(config_of(tmp_path / "run", setting))


def test_a_run_that_was_started_before_a_knob_existed_can_be_continued(tmp_path):
    """A run whose config has a knob that no longer exists can be continued too."""
    begun(tmp_path / "run", config_of(tmp_path / "run"))
    stored = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    del stored["model"]["dim"], stored["training"]["negatives"], stored["seed"]
    stored["model"]["gone"] = {"dim": 3}  # a knob that the config lacks had its default
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(stored))
    open_run_folder(config_of(tmp_path / "run"))
    with pytest.raises(InputError, match=r"was begun with model\.dim=64 and the command says 8"):
        open_run_folder(config_of(tmp_path / "run", "model.dim=8"))
