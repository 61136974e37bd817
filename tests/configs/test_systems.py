"""Each system has one entry, a model, and knobs of its own that nobody else reads."""

import logging

import pytest

from configs.knobs import all_knobs, section_of
from configs.loading import dump_config, load_config
from configs.model_options import ModelConfig
from configs.schema import Config
from configs.strict_yaml import dump_yaml, parse_yaml
from configs.systems.registry import SYSTEMS
from contracts.errors import InputError
from distributed.checkpoints.run_folder import open_run_folder
from model.protocol import CatalogueInfo
from model.zoo import MODELS, build_model


def test_every_system_has_a_model_and_its_section():
    assert set(MODELS) == set(SYSTEMS)
    for name, system in SYSTEMS.items():
        assert system.about
        field = ModelConfig.model_fields.get(name)
        assert (section_of(field) if field else None) is system.knobs


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_registry_says_what_the_model_needs(name):
    names = ("image", "text")
    dims, centers = dict.fromkeys(names, 3), dict.fromkeys(names, 2)
    info = CatalogueInfo(num_items=9, modalities=names, feature_dims=dims, num_centers=centers)
    config = load_config(None, [f"model.name={name}", "evaluation.cooccurrence_weight=1"])
    needs = build_model(config.model, info).needs
    assert SYSTEMS[name].reads_features == bool(needs.features)
    assert SYSTEMS[name].trains_on_graph == bool(needs.cooccurrence or needs.views)
    assert SYSTEMS[name].is_trained == needs.id_rows


def test_only_the_named_systems_section_is_there():
    assert load_config(None).model.own == load_config(None).model.mdsrec
    plain = load_config(None, ["evaluation.cooccurrence_weight=1", "model.name=itemknn"])
    assert plain.model.own is None
    assert plain.model.mdsrec is None
    assert any(name.startswith("model.mdsrec.") for name, _ in all_knobs(Config))  # and still among all knobs


def test_a_file_may_hold_sections_of_other_systems(tmp_path, caplog):
    path = tmp_path / "preset.yaml"
    path.write_text("model: {dim: 32, mdsrec: {tau: 2.0}}\n")
    with caplog.at_level(logging.WARNING):
        assert load_config(str(path)).model.mdsrec.tau == 2
        assert caplog.messages == []
        config = load_config(str(path), ["model.name=sasrec"])
    assert caplog.messages == [
        f"note: {path}: its section model.mdsrec is only for model.name=mdsrec and is ignored here"
    ]
    assert config.model.mdsrec is None
    saved = tmp_path / "saved.yaml"
    saved.write_text(dump_config(config))
    assert load_config(str(saved)) == config
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("override", ["model.mdsrec.tau=2", "model.mdsrec={tau: 2}"])
def test_a_knob_of_another_system_is_refused_by_name(override):
    for overrides in ([override, "model.name=sasrec"], ["model.name=sasrec", override]):
        with pytest.raises(InputError, match=r"--set model\.mdsrec.*: is a knob of mdsrec, but model\.name=sasrec"):
            load_config(None, overrides)


def test_an_ablation_is_mdsrecs():
    with pytest.raises(InputError, match=r"ablation=ICA leaves out a part of mdsrec, but model.name=sasrec"):
        load_config(None, ["ablation=ICA", "model.name=sasrec"])


def test_an_unknown_system_is_refused_with_the_list():
    with pytest.raises(
        InputError, match=r"model\.name='sasrek': is not a system; the systems are mdsrec, sasrec, sasrecf"
    ):
        load_config(None, ["model.name=sasrek"])


def test_a_run_of_earlier_versions_is_continued_whatever_other_systems_knobs_it_saved(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    config = load_config(None, ["model.name=sasrec", f"run={run}"])
    stored = parse_yaml(dump_config(config))
    stored["model"]["mdsrec"] = {"tau": 3.0, "rho": {"text": 1.0}}
    (run / "config.yaml").write_text(dump_yaml(stored))
    open_run_folder(config)


def test_the_number_of_heads_binds_those_systems_only_that_have_heads():
    for name, entry in SYSTEMS.items():
        changes = [f"model.name={name}", "model.dim=6", "model.num_heads=4"]
        changes += ["evaluation.cooccurrence_weight=1"] if entry.scores_by_cooccurrence else []
        if entry.has_heads:
            with pytest.raises(InputError, match=r"dim=6 is not a multiple of model\.num_heads=4"):
                load_config(None, changes)
        else:
            assert load_config(None, changes).model.dim == 6
