"""training.unit=auto: what it stands for, what is refused, and that runs of earlier versions go on."""

import pytest

from configs.loading import dump_config, load_config
from configs.schema import Config, ModelConfig, TrainingConfig
from configs.strict_yaml import dump_yaml, parse_yaml
from configs.systems.registry import SYSTEMS
from contracts.errors import InputError
from distributed.checkpoints.run_folder import open_run_folder

CAUSAL = [name for name, system in SYSTEMS.items() if "windows" in system.units]
MASKED = [name for name, system in SYSTEMS.items() if "masks" in system.units]
WHOLE_INPUT = [name for name, system in SYSTEMS.items() if system.units == ("prefixes",)]


def config_of(name, *more):
    return load_config(None, [f"model.name={name}", "evaluation.cooccurrence_weight=1", *more])


def test_there_are_systems_of_every_kind():
    assert {"mdsrec", "sasrec", "sasrecf"} <= set(CAUSAL)
    assert WHOLE_INPUT
    assert MASKED
    assert {*CAUSAL, *WHOLE_INPUT, *MASKED} == set(SYSTEMS)


@pytest.mark.parametrize("name", CAUSAL)
def test_causal_systems_train_windows_as_before(name):
    assert config_of(name).training.unit == "windows"
    assert "unit: windows" in dump_config(config_of(name)), "saved as versions without auto saved it"
    assert config_of(name, "training.unit=prefixes").training.unit == "prefixes"


@pytest.mark.parametrize("name", WHOLE_INPUT)
def test_systems_that_see_their_whole_input_train_prefix_rows(name):
    assert config_of(name).training.unit == "prefixes"
    assert config_of(name, "training.unit=prefixes").training.unit == "prefixes"
    with pytest.raises(
        InputError, match=rf"training\.unit=windows, but each state of model\.name={name} sees the whole"
    ):
        config_of(name, "training.unit=windows")


@pytest.mark.parametrize("name", MASKED)
def test_systems_that_have_a_mask_train_masks(name):
    assert config_of(name).training.unit == "masks"
    assert config_of(name, "training.unit=prefixes").training.unit == "prefixes"
    with pytest.raises(InputError, match=r"sees the whole window, .*; set unit to auto, masks or prefixes"):
        config_of(name, "training.unit=windows")


@pytest.mark.parametrize("name", [*CAUSAL, *WHOLE_INPUT])
def test_masks_are_refused_by_systems_that_have_none(name):
    with pytest.raises(InputError, match=rf"training\.unit=masks, but model\.name={name} has no mask"):
        config_of(name, "training.unit=masks")


@pytest.mark.parametrize("name", MASKED)
def test_candidates_of_masked_rows_are_drawn_without_the_batch(name):
    """Their weights would count an item that a row sees as if the row could have it as a target of another span."""
    with pytest.raises(InputError, match=r"in_batch=true with draws=9, but with training\.unit=masks .* in_batch"):
        config_of(name, "training.negatives.draws=9")
    alone = config_of(name, "training.negatives.draws=9", "training.negatives.in_batch=false")
    assert alone.training.unit == "masks"
    assert config_of(name, "training.negatives.draws=9", "training.unit=prefixes").training.negatives.in_batch


def test_auto_is_replaced_however_a_config_is_made(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("training: {unit: auto}\n")
    assert load_config(str(preset)).training.unit == "windows"
    assert load_config(str(preset), [f"model.name={WHOLE_INPUT[0]}"]).training.unit == "prefixes"
    assert Config().training.unit == "windows"
    made = Config(model=ModelConfig(name=WHOLE_INPUT[0]), training=TrainingConfig(batch_size=8))
    assert (made.training.unit, made.training.batch_size) == ("prefixes", 8)


def begun(run, config, unit):
    """Write the config of a run as an earlier version did, with this unit; None: the version had no such knob."""
    run.mkdir()
    stored = parse_yaml(dump_config(config))
    stored["training"].pop("unit")
    if unit is not None:
        stored["training"]["unit"] = unit
    (run / "config.yaml").write_text(dump_yaml(stored))


@pytest.mark.parametrize(("name", "unit"), [("sasrec", "windows"), ("sasrec", None), (WHOLE_INPUT[0], "prefixes")])
@pytest.mark.parametrize("command", ["auto", "the same", None])
def test_a_run_goes_on_with_auto_if_auto_means_its_unit(tmp_path, name, unit, command):
    run = tmp_path / "run"
    said = {"auto": ["training.unit=auto"], "the same": [f"training.unit={unit or 'windows'}"], None: []}[command]
    config = config_of(name, f"run={run}", *said)
    begun(run, config, unit)
    open_run_folder(config)


def test_a_run_of_prefix_rows_is_not_continued_with_windows(tmp_path):
    run = tmp_path / "run"
    config = config_of("sasrec", f"run={run}", "training.unit=auto")
    begun(run, config, "prefixes")
    with pytest.raises(InputError, match=r"was begun with training\.unit=prefixes and the command says windows"):
        open_run_folder(config)
