"""Every knob says what it decides, and that alone says when it may change."""

import pytest
from pydantic import Field

from configs.knobs import Decides, Section, all_knobs, decides, knob
from configs.loading import dump_config, load_config
from configs.schema import Config
from configs.strict_yaml import dump_yaml, parse_yaml
from configs.systems.registry import SYSTEMS
from contracts.errors import InputError
from distributed.checkpoints.run_folder import FIXED_IN_A_RUN, first_difference, open_run_folder
from graph_builder.graph import LAYOUT_FIELDS


def test_every_knob_says_what_it_decides_and_what_it_means():
    found = dict(all_knobs(Config))
    assert {"model.mdsrec.rho", "training.negatives.draws", "evaluation.ks", "seed"} <= set(found)
    for name, info in found.items():
        assert decides(info) in Decides, name
        assert info.description, name


def test_a_knob_that_does_not_say_is_noticed():
    class Other(Section):
        said: int = knob(1, Decides.RUNNING, "of a test")
        unsaid: int = Field(1, description="of a test")

    kinds = dict(all_knobs(Other))
    assert decides(kinds["said"]) == Decides.RUNNING
    with pytest.raises(AssertionError, match="no knob"):
        decides(kinds["unsaid"])


@pytest.mark.parametrize("name", [name for name, _ in all_knobs(Config)])
def test_what_a_knob_decides_is_what_a_continued_run_holds_it_to(tmp_path, name):
    run = tmp_path / "run"
    run.mkdir()
    *sections, leaf = name.split(".")
    systems = [f"model.name={section}" for section in sections if section in SYSTEMS]
    config = load_config(None, [f"run={run}", *systems])
    stored = parse_yaml(dump_config(config))
    node = stored
    for section in sections:
        node = node[section]
    node[leaf] = "another"
    (run / "config.yaml").write_text(dump_yaml(stored))
    if name != "training.start_from" and decides(dict(all_knobs(Config))[name]) not in (Decides.RESULT, Decides.SCORE):
        open_run_folder(config)
        return
    # A run that starts from another run is not continued as one that does not: test_start_refusals.py has more.
    with pytest.raises(InputError) as refused:
        open_run_folder(config)
    assert f"was begun with {name}=another and the command says" in str(refused.value)


def test_the_kinds_are_what_the_documents_promise():
    kinds = {name: decides(info) for name, info in all_knobs(Config)}
    assert kinds["training.patience"] == kinds["training.max_epochs"] == kinds["training.max_steps"] == Decides.LENGTH
    scores = {name for name, kind in kinds.items() if kind == Decides.SCORE}
    assert scores == {
        f"evaluation.{name}"
        for name in ("ks", "mask_history", "cooccurrence_weight", "cooccurrence_decay", "cooccurrence_cap", "ties",
                     "bootstrap_samples")
    }  # fmt: skip
    assert {"backend", "block_rows", "rows_per_task", "precision", "cpus_per_task", "gpus_per_task"} == LAYOUT_FIELDS
    assert {name for name, kind in kinds.items() if kind == Decides.PLACE} == {
        "dataset", "graph", "run", "training.start_from",
    }  # fmt: skip
    assert {Decides.RESULT, Decides.SCORE} == FIXED_IN_A_RUN


def test_a_knob_that_a_saved_config_does_not_know_had_its_default():
    config = load_config(None)
    stored = parse_yaml(dump_config(config))
    del stored["model"]["learn_repeats"], stored["table"]
    assert first_difference(stored, config, FIXED_IN_A_RUN) is None
    other = load_config(None, ["model.learn_repeats=true"])
    assert first_difference(stored, other, FIXED_IN_A_RUN) == ("model.learn_repeats", False, True)
