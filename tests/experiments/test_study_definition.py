"""Study files: the trials that they expand to, and the mistakes that are refused."""

from pathlib import Path

import pytest
import yaml

from configs.loading import load_config
from contracts.errors import InputError
from experiments.study.definition import Study, expand, read_study

ROOT = Path(__file__).resolve().parents[2]
SOUND = {"base": "configs/demo.yaml", "title": "What matters?", "seeds": [0, 1]}
ABLATIONS = {"none": {"ablation": "none"}, "ICA": {"ablation": "ICA"}}


def written(tmp_path, **fields):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**SOUND, **fields}, sort_keys=False))
    return str(path)


def test_variants_with_seeds_become_trials(tmp_path):
    path = written(tmp_path, variants=ABLATIONS, baseline="none")
    trials = expand(read_study(path), path, ["dataset=somewhere", "model.dim=16", "training.learning_rate=1e-2"])
    assert [trial.name for trial in trials] == ["none-s0", "none-s1", "ICA-s0", "ICA-s1"]
    assert [trial.config.seed for trial in trials] == [0, 1, 0, 1]
    assert [trial.config.model.mdsrec.center_attention for trial in trials] == [True, True, False, False]
    for trial in trials:
        assert trial.overrides == ABLATIONS[trial.variant]
        assert (trial.config.dataset, trial.config.model.dim) == ("somewhere", 16)
        assert trial.config.training.learning_rate == 0.01
        assert trial.config.model.max_length == 20  # from the preset
        assert trial.config.cluster.num_workers == 1
        assert (trial.config.graph, trial.config.run, trial.graph_seed) == (None, None, 0)


def test_a_grid_is_the_product_of_its_values(tmp_path):
    grid = {"graph_options.num_neighbors": [1, 5], "model.mdsrec.center_attention": [True, False]}
    path = written(tmp_path, grid=grid, seeds=[7])
    trials = expand(read_study(path), path)
    assert [trial.name for trial in trials] == [
        "num_neighbors=1,center_attention=true-s7",
        "num_neighbors=1,center_attention=false-s7",
        "num_neighbors=5,center_attention=true-s7",
        "num_neighbors=5,center_attention=false-s7",
    ]
    found = [(t.config.graph_options.num_neighbors, t.config.model.mdsrec.center_attention) for t in trials]
    assert found == [(1, True), (1, False), (5, True), (5, False)]


def test_settings_are_of_all_variants_and_a_variants_own_counts(tmp_path):
    settings = {"model.dim": 16, "training.patience": 3}
    path = written(tmp_path, settings=settings, variants={"a": {}, "b": {"model.dim": 32}}, seeds=[0])
    study = read_study(path)
    trials = expand(study, path)
    assert [(t.config.model.dim, t.config.training.patience) for t in trials] == [(16, 3), (32, 3)]
    assert [t.overrides for t in trials] == [{}, {"model.dim": 32}]
    assert study.varied() == ("model.dim",)
    with pytest.raises(InputError, match=r"already sets training\.patience; leave out this --set"):
        expand(study, path, ["training.patience=4"])
    path = written(tmp_path, settings={"model.dims": 16}, variants={"a": {}})
    with pytest.raises(InputError, match=r"variant a: .*did you mean model\.dim\?"):
        expand(read_study(path), path)


def test_knobs_of_one_name_are_told_apart():
    grid = {"training.learning_rate": [0.1], "table.learning_rate": [0.2, None]}
    names = list(Study(**SOUND, grid=grid).named_variants())
    assert names == [
        "training.learning_rate=0.1,table.learning_rate=0.2",
        "training.learning_rate=0.1,table.learning_rate=null",
    ]


def test_the_presets_seed_makes_the_graphs(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text("seed: 11\nmodel: {dim: 8, num_heads: 2}\n")
    path = written(tmp_path, base=str(base), variants={"a": {}})
    assert [(t.seed, t.config.seed, t.graph_seed) for t in expand(read_study(path), path)] == [(0, 0, 11), (1, 1, 11)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variants": ABLATIONS, "grids": {}}, "unknown field grids; the fields are base, title, seeds"),
        ({"variants": ABLATIONS, "grid": {"model.dim": [8]}}, "either `variants` or `grid`; give one of the two"),
        ({}, "either `variants` or `grid`; give one of the two"),
        ({"variants": {}}, "variants is empty"),
        ({"grid": {}}, "grid is empty"),
        ({"grid": {"model.dim": []}}, "grid: model.dim has no values"),
        ({"grid": {"model.dim": [8, 8]}}, "grid: model.dim: a value is listed twice"),
        ({"grid": {"evaluation.ks": [[10], [20]]}}, "evaluation.ks: [10] is not a single value"),
        ({"grid": {f"model.k{i}": list(range(10)) for i in range(9)}}, "2,000,000,000 trials, more than the 10,000"),
        ({"variants": ABLATIONS, "seeds": []}, "seeds: "),
        ({"variants": ABLATIONS, "seeds": [1, 1]}, "seeds: a seed is listed twice"),
        ({"variants": ABLATIONS, "seeds": [-1]}, "seeds.0=-1: "),
        ({"variants": ABLATIONS, "base": None}, "base=None: "),
        ({"variants": ABLATIONS, "baseline": "all"}, "baseline=all: is not a variant; name one of none, ICA"),
        ({"variants": {"w/o ICA": {}}}, "variant 'w/o ICA' cannot name a folder"),
        ({"variants": {"..": {}}}, "variant '..' cannot name a folder"),
        ({"variants": {"a": None}}, "variants.a=None: "),
        ({"variants": {"a": {"seed": 3}}}, "seed cannot be varied"),
        ({"variants": {"a": {"cluster.num_workers": 3}}}, "cluster.num_workers cannot be varied"),
        ({"grid": {"dataset": ["a", "b"]}}, "dataset cannot be varied"),
        ({"variants": ABLATIONS, "settings": {"dataset": "a"}}, "settings: dataset cannot be among them"),
        ({"variants": ABLATIONS, "settings": [1]}, "settings=[1]: "),
    ],
)
def test_what_is_wrong_is_said(tmp_path, fields, message):
    path = written(tmp_path, **fields)
    with pytest.raises(InputError) as refused:
        read_study(path)
    assert f"study {path}: " in str(refused.value)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("variants", "overrides", "message"),
    [
        ({"a": {}, "b": {"model.dims": 8}}, [], "variant b: config ("),
        ({"a": {}, "b": {"model.dims": 8}}, [], "did you mean model.dim?"),
        ({"a": {"model.dim": "wide"}}, [], "model.dim='wide': "),
        ({"a": {"model.dim": 30}}, ["model.num_heads=4"], "dim=30 is not a multiple of model.num_heads=4"),
        ({"a": {"model.dim": 8}}, ["model.dim=16"], "--set model.dim=16: study"),
        ({"a": {"model.dim": 8}}, ["model={}"], "already varies model.dim; leave out this --set"),
        ({"a": {}}, ["seed=3"], "--set seed=3: a study sets seed itself"),
        ({"a": {}}, ["run=x"], "--set run=x: a study sets run itself"),
        ({"a": {}}, ["cluster.num_workers=4"], "a study sets cluster.num_workers itself"),
        ({"a": {}}, ["model.dims=3"], "variant a: --set: unknown key model.dims"),
    ],
)
def test_a_config_that_cannot_be_is_refused(tmp_path, variants, overrides, message):
    path = written(tmp_path, variants=variants)
    with pytest.raises(InputError) as refused:
        expand(read_study(path), path, overrides)
    assert message in str(refused.value)


def test_a_preset_that_is_not_there(tmp_path):
    path = written(tmp_path, base="configs/none.yaml", variants=ABLATIONS)
    with pytest.raises(InputError, match=r"configs/none\.yaml: cannot be read"):
        expand(read_study(path), path)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/studies").rglob("*.yaml")), ids=lambda path: path.stem)
def test_the_studies_here_expand(path):
    study = read_study(str(path))
    trials = expand(study, str(path), ["dataset=somewhere"])
    assert len(trials) == len(study.named_variants()) * len(study.seeds)
    assert len({trial.config.model_copy(update={"ablation": "none"}).model_dump_json() for trial in trials}) == len(
        trials
    )
    assert study.baseline in study.named_variants()


def test_the_best_of_the_headline_study_is_the_preset():
    path = str(ROOT / "configs/studies/scientific.yaml")
    trial = next(trial for trial in expand(read_study(path), path) if trial.variant == "best")
    preset = load_config(str(ROOT / "configs/scientific-best.yaml"), [])
    assert trial.config.model_dump(exclude={"cluster"}) == preset.model_dump(exclude={"cluster"})
