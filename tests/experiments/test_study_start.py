"""Studies whose variants start from another run, or freeze weights."""

import json
import shutil

import pytest

from contracts.errors import InputError
from distributed.checkpoints.start import open_start
from experiments.study.definition import Trial
from experiments.study.results import trial_folder
from experiments.study.run_study import check_same_starts
from tests.distributed.runs import config_of
from tests.distributed.start_runs import make_sources
from tests.experiments.test_study import finished, study

__all__ = ["study"]  # a fixture
SASREC = {"model.name": "sasrec"}


@pytest.fixture(scope="module")
def sources(folders, tmp_path_factory):
    return make_sources(folders, tmp_path_factory.mktemp("sources"))


@pytest.mark.long
def test_variants_start_from_another_run(tmp_path, study, sources):
    source = tmp_path / "source"
    shutil.copytree(sources / "data_parallel", source)
    tuned = {**SASREC, "training.start_from": str(source), "training.freeze": ["table.*"]}
    variants = {"fresh": SASREC, "tuned": tuned, "part": {**tuned, "training.leave_out": ["recommender.*"]}}
    assert study(variants) == []
    found = {name: json.loads((tmp_path / f"study/trials/{name}-s0/metrics.json").read_text()) for name in variants}
    assert "started_from" not in found["fresh"]
    expected = {"run": str(source), "checkpoint": open_start(str(source)).fingerprint}
    assert found["tuned"]["started_from"] == found["part"]["started_from"] == expected
    assert len({found[name]["test"]["ndcg@10"] for name in variants}) == 3

    before = finished(tmp_path)
    shutil.rmtree(source)  # finished trials do not need it
    assert study(variants) == []
    assert finished(tmp_path) == before
    # Another run at its path: the study may not train more trials from it.
    shutil.copytree(sources / "row_wise", source)
    with pytest.raises(
        InputError, match=r"trial tuned-s0 in .*/study started from another checkpoint than is now the be"
    ):
        study(variants, seeds=(0, 1))
    with pytest.raises(
        InputError, match=r"trial tuned-s0 differs from its run .*start_from=.*whose best checkpoint is"
    ):
        study({"tuned": {**tuned, "training.start_from": str(sources / "row_wise")}})
    assert finished(tmp_path) == before


def test_a_variant_that_cannot_start_is_refused_before_any_trial(tmp_path, study, sources):
    wider = {**SASREC, "training.start_from": str(sources / "row_wise"), "model.max_length": 9}
    with pytest.raises(InputError, match=r"trial b-s0: training\.start_from=.*positions\.weight has shape \[8, 8\]"):
        study({"a": SASREC, "b": wider})
    with pytest.raises(InputError, match=r"trial b-s0: training\.freeze=\[tabel\.\*\]: matches no weight"):
        study({"a": SASREC, "b": {**SASREC, "training.freeze": ["tabel.*"]}})
    assert not (tmp_path / "study/trials").exists()


def test_a_trial_that_has_checkpoints_does_not_need_the_other_run(folders, tmp_path):
    config = config_of(folders, None, "sasrec", f"training.start_from={tmp_path}/gone")
    trial = Trial(variant="tuned", seed=0, overrides={}, graph_seed=0, config=config)
    with pytest.raises(InputError, match="gone"):
        check_same_starts([trial], [trial], tmp_path)
    checkpoints = trial_folder(tmp_path, trial) / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "index.json").write_text('{"latest": 1, "best": 1}')
    check_same_starts([trial], [trial], tmp_path)


@pytest.mark.long
def test_few_users_have_graphs_of_their_own_for_each_seed(tmp_path, study):
    """The seed chooses the users, so the graph of a trial has the trial's seed; graphs of all users are shared."""
    few = {"model.name": "mdsrec", "training.user_share": 0.5, "training.max_epochs": 0}
    variants = {"few": few, "all": {**few, "training.user_share": 1.0}}
    assert study(variants, seeds=(0, 1)) == []
    found = {}
    for path in (tmp_path / "study/graphs").glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        pairs = manifest["cooccurrence"]["pairs_counted"]
        found[manifest["parameters"].get("user_share", 1.0), manifest["seed"]] = pairs
    assert sorted(found) == [(0.5, 0), (0.5, 1), (1.0, 0)]
    assert max(found[0.5, 0], found[0.5, 1]) < 0.8 * found[1.0, 0]
