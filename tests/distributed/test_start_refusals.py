"""What a run that starts from another run refuses, and when it may be continued."""

import json
import shutil
from dataclasses import replace

import pytest

from configs.loading import dump_config, load_config
from contracts.errors import InputError
from distributed.checkpoints.index import feature_key, find_checkpoint
from distributed.checkpoints.progress import Progress
from distributed.checkpoints.run_folder import open_run_folder
from distributed.checkpoints.start import StartCheckpoint, open_start
from distributed.inputs import build_system, open_inputs
from distributed.job_paths import resolve_paths
from distributed.training.start import plan_start
from distributed.training.trainer import check_trainable, train
from distributed.world import world_of_one
from tests.distributed.runs import config_of
from tests.distributed.start_runs import (
    SHORT,
    make_sources,
    make_unisrec,
    started,
)


@pytest.fixture(scope="module")
def sources(folders, tmp_path_factory):
    return make_sources(folders, tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def unisrec(folders, tmp_path_factory):
    return make_unisrec(folders, tmp_path_factory.mktemp("unisrec"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["training.freeze=[encoder.positions.weight]"],
         r"training\.freeze=\[encoder\.positions\.weight\]: matches no weight; the most similar names are r"),
        (["training.freeze=[table.*, tabel.*]"], r"training\.freeze=\[tabel\.\*\]: matches no weight; .* table\."),
        (["training.leave_out=[towers.*]"], r"training\.leave_out=\[towers\.\*\]: matches no weight; the most similar"),
        (['training.freeze=["*"]'], r"freeze=\[\*\]: matches all 32 parameters, so nothing would be trained"),
        (["training.freeze=[table.*, recommender.*]"], r"matches all 32 parameters"),
        (['training.leave_out=["*"]'], r"none of its 32 weights would be loaded into model\.name=sasrec, which has 32"),
        (["model.max_length=9"],
         r"positions\.weight has shape \[8, 8\] there and \[9, 8\] in run=.*/new; give both runs the same model "
         r'settings, or set training\.leave_out=\["recommender\.encoder\.positions\.weight"\] to begin'),
        (["model.dim=16"],
         r"item_id\.weight has shape \[70, 8\] there and \[70, 16\] .* \(31 more weights also differ\); .* patterns"),
    ],
)  # fmt: skip
def test_a_start_that_cannot_be_is_refused_before_any_rank_starts(folders, tmp_path, sources, settings, said):
    config = started(folders, tmp_path / "new", sources / "data_parallel", *settings)
    with pytest.raises(InputError, match=said) as refused:
        check_trainable(config, open_inputs(config))
    assert "\n" not in str(refused.value)
    with world_of_one() as world, pytest.raises(InputError, match=said):
        train(config, world)
    assert not (tmp_path / "new/checkpoints").exists()


def test_the_item_table_of_another_dataset_is_refused_though_its_shape_fits(folders, tmp_path, unisrec):
    own = ("model.unisrec.use_ids=true", f"dataset={unisrec}/dataset")
    config = started(folders, tmp_path / "new", unisrec / "source", *own, model="unisrec")
    with pytest.raises(
        InputError, match=r'was trained on another dataset than .*set training\.leave_out=\["table\.\*"\]'
    ):
        check_trainable(config, open_inputs(config))


def of_another_dataset(folders, tmp_path, name, *more):
    """A config that leaves out the table, its system, and a checkpoint of the same system on dataset "b"."""
    config = started(folders, tmp_path / "new", tmp_path / "other", "training.leave_out=[table.*]", *more, model=name)
    system = build_system(config, open_inputs(config))
    shapes = {key: tuple(value.size()) for key, value in system.state_dict().items()}
    progress = Progress(fingerprints={"dataset": "b"})
    return config, system, StartCheckpoint(run="OTHER", path=tmp_path, progress=progress, shapes=shapes)


def test_other_weights_of_single_items_are_refused_too(folders, tmp_path):
    config, system, source = of_another_dataset(folders, tmp_path, "bert4rec")
    named = r'leave_out=\["table\.\*", "recommender\.output_bias"\] to begin with fresh ones'
    with pytest.raises(InputError, match=named):
        plan_start(config, "a", system, source)
    assert "recommender.output_bias" in plan_start(config, "b", system, source).loaded


def test_what_is_computed_before_each_epoch_is_not_loaded_from_another_dataset(folders, tmp_path):
    config, system, source = of_another_dataset(folders, tmp_path, "missrec")
    other, same = (plan_start(config, dataset, system, source) for dataset in ("a", "b"))
    assert same.has_epoch_buffers(system.recommender)
    assert not other.has_epoch_buffers(system.recommender)
    computed = {"recommender.interests", "recommender.interest_of"}
    assert other.loaded == same.loaded - computed
    training = config.training.model_copy(update={"leave_out": ("table.*", "recommender.interests")})
    fewer = plan_start(config.model_copy(update={"training": training}), "b", system, source)
    assert fewer.loaded == same.loaded - computed, "a part of what is computed was kept"


def test_vectors_of_another_encoder_are_refused(folders, tmp_path):
    config, system, source = of_another_dataset(folders, tmp_path, "unisrec")
    (modality,) = system.recommender.needs.features
    source.progress.fingerprints[f"encoder_of_{modality}"] = "minilm 0123456789ab"
    for same in ("minilm 0123456789ab", "its-folder-was-renamed 0123456789ab"):
        assert plan_start(config, "a", system, source, encoders={f"encoder_of_{modality}": same}).loaded
    assert plan_start(config, "a", system, source, encoders={}).loaded
    assert plan_start(config, "a", system, source, encoders={"encoder_of_sound": "other 0"}).loaded
    named = (
        rf"vectors of {modality} are of the encoder minilm 0123456789ab, and those of dataset=.* of mpnet ba9876543210"
    )
    with pytest.raises(InputError, match=named):
        plan_start(config, "a", system, source, encoders={f"encoder_of_{modality}": "mpnet ba9876543210"})


@pytest.mark.parametrize("name", ["unisrec", "missrec", "mmmlp", "msm4sr", "sasrecf", "gru4recf", "fdsa", "mdsrec"])
def test_weights_of_another_feature_are_refused(folders, tmp_path, name):
    more = ("model.mdsrec.share_modalities=false",) if name == "mdsrec" else ()
    config, system, source = of_another_dataset(folders, tmp_path, name, *more)
    features = system.recommender.module_features
    assert features, "no module of this system is known to belong to a feature"
    assert set(features) <= {module for module, _ in system.recommender.named_modules()}
    assert plan_start(config, "a", system, source).loaded  # runs of earlier versions did not record the features
    source.progress.fingerprints |= {feature_key(module): feature for module, feature in features.items()}
    assert plan_start(config, "a", system, source).loaded
    module = next(iter(features))
    source.progress.fingerprints[feature_key(module)] = "sound"
    with pytest.raises(InputError, match=rf"{module} of that run reads the feature 'sound', and in run=.*/new"):
        plan_start(config, "a", system, source)
    left_out = [*config.training.leave_out, f"recommender.{module}.*"]
    training = config.training.model_copy(update={"leave_out": tuple(left_out)})
    assert plan_start(config.model_copy(update={"training": training}), "a", system, source).loaded


def test_a_module_that_is_renamed_keeps_its_feature(folders, tmp_path):
    config, system, source = of_another_dataset(folders, tmp_path, "mmmlp")
    features = system.recommender.module_features
    source.progress.fingerprints |= {feature_key(f"norms.{new}"): features[f"norms.{3 - new}"] for new in (1, 2)}
    exchanged = {f"recommender.norms.{new}": f"recommender.norms.{3 - new}" for new in (1, 2)}
    training = config.training.model_copy(update={"rename": exchanged})
    assert plan_start(config.model_copy(update={"training": training}), "a", system, source).loaded
    with pytest.raises(InputError, match="of that run reads the feature"):
        plan_start(config, "a", system, source)


def test_a_run_records_the_features_of_its_modules(unisrec):
    _, progress = find_checkpoint(str(unisrec / "source"), "best", {})
    assert progress.fingerprints[feature_key("adaptor")] == "text"


def test_another_model_without_a_common_weight_is_refused(folders, tmp_path, sources):
    config = started(folders, tmp_path / "new", sources / "row_wise", "training.leave_out=[table.*]", model="gru4rec")
    with pytest.raises(InputError, match=r"none of its 32 weights would be loaded into model\.name=gru4rec"):
        check_trainable(config, open_inputs(config))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (shutil.rmtree, r"start_from=.*/source: has no config\.yaml, so it is no run"),
        (lambda run: shutil.rmtree(run / "checkpoints"), r"training\.start_from: run .*/source: has no checkpoint"),
        (lambda run: _index(run, "{"), r"training\.start_from: .*index\.json: cannot be read"),
        (lambda run: _index(run, '{"latest": 16, "best": null}'), "was not validated yet"),
        (lambda run: _index(run, '{"latest": 16, "best": 99}'), "step-00000099: progress.json"),
        (lambda run: _shard(run).unlink(), "is missing; restore the file from a copy"),
        (lambda run: _flip(_shard(run)), r"is damaged \(SHA-256 .*; restore the file"),
    ],
    ids=["no run", "no checkpoint", "index", "not validated", "no such step", "a file is gone", "one bit"],
)
def test_a_damaged_run_to_start_from_is_refused(folders, tmp_path, sources, damage, said):
    shutil.copytree(sources / "data_parallel", tmp_path / "source")
    damage(tmp_path / "source")
    config = started(folders, tmp_path / "new", tmp_path / "source")
    with pytest.raises(InputError, match=said) as refused:
        check_trainable(config, open_inputs(config))
    assert "--checkpoint" not in str(refused.value)


def _index(run, content):
    (run / "checkpoints/index.json").write_text(content)


def _shard(run):
    best = json.loads((run / "checkpoints/index.json").read_text())["best"]
    return next((run / f"checkpoints/step-{best:08d}").glob("*.safetensors"))


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def test_leaving_out_of_nothing_is_refused():
    with pytest.raises(
        InputError, match=r"training\.leave_out=\['table\.\*'\] says what is not loaded from another run"
    ):
        load_config(None, ["training.leave_out=[table.*]"])


def test_a_continued_run_may_move_the_run_it_started_from_but_not_exchange_it(folders, tmp_path, sources):
    source = sources / "data_parallel"
    begun = started(folders, tmp_path / "new", source)
    (tmp_path / "new").mkdir()
    (tmp_path / "new/config.yaml").write_text(dump_config(begun))
    shutil.copytree(source, tmp_path / "moved")
    moved, exchanged = (started(folders, tmp_path / "new", path) for path in (tmp_path / "moved", sources / "row_wise"))
    open_run_folder(exchanged)  # without a checkpoint the run begins again
    with world_of_one() as world:
        train(begun, world)
    open_run_folder(moved)
    with pytest.raises(
        InputError, match=r"was begun with training\.start_from=.*/row_wise, whose best checkpoint is another"
    ):
        open_run_folder(exchanged)
    gone = started(folders, tmp_path / "new", tmp_path / "gone")
    with pytest.raises(InputError, match=r"start_from=.*/gone: has no config"):
        open_run_folder(gone)
    with pytest.raises(InputError, match=r"was begun with training\.start_from=.* and the command says null"):
        open_run_folder(config_of(folders, tmp_path / "new", "sasrec", SHORT))
    for knob in ("training.freeze=[table.*]", "training.leave_out=[table.*]"):
        with pytest.raises(InputError, match=r"was begun with training\.(freeze|leave_out)=\[\] and the command says"):
            open_run_folder(started(folders, tmp_path / "new", source, knob))


def test_a_relative_path_is_made_absolute(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = resolve_paths(started(folders, "new", "../source"))
    assert config.training.start_from == str(tmp_path.parent / "source")
    assert resolve_paths(config) == config
    assert resolve_paths(config_of(folders, "new", "sasrec")).training.start_from is None


def test_a_width_that_differs_names_the_feature_and_a_feature_that_differs_is_named_first(folders, tmp_path):
    config, system, source = of_another_dataset(folders, tmp_path, "unisrec")
    name = next(name for name in source.shapes if name.startswith("recommender.adaptor."))
    source.shapes[name] = (1, *source.shapes[name])
    (feature,) = system.recommender.needs.features
    with pytest.raises(InputError, match=f"the same model settings and vectors of {feature} of the same width"):
        plan_start(config, "a", system, source)
    source.progress.fingerprints[feature_key("adaptor")] = "sound"
    with pytest.raises(InputError, match="reads the feature 'sound'"):
        plan_start(config, "a", system, source)


def test_settings_that_no_shape_shows_and_frozen_weights_that_stay_random_are_noted(folders, tmp_path):
    config, system, source = of_another_dataset(folders, tmp_path, "sasrec")
    same = replace(source, model={"num_heads": config.model.num_heads, "activation": config.model.activation})
    assert not plan_start(config, "a", system, source).notes, "earlier versions may not have recorded a knob"
    assert not plan_start(config, "a", system, same).notes
    other = replace(source, model={"num_heads": 8, "activation": "relu"})
    heads, activation = plan_start(config, "a", system, other).notes
    assert heads.startswith("model.num_heads is 8 in OTHER and 2 in run=")
    assert activation.startswith("model.activation is relu in OTHER and gelu in run=")

    training = config.training.model_copy(update={"freeze": ("recommender.encoder.layers.*",)})
    frozen = config.model_copy(update={"training": training})
    assert not plan_start(frozen, "a", system, source).notes
    for name in [name for name in source.shapes if ".layers.1." in name]:
        del source.shapes[name]
    plan = plan_start(frozen, "a", system, source)
    (note,) = plan.notes
    assert "weights that training.freeze matches are fresh" in note
    assert plan.text(by_module=True).endswith(f"note: {note}")


def test_the_settings_of_the_other_run_are_read(unisrec):
    assert open_start(str(unisrec / "source")).model["num_heads"] == 2
