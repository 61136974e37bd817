"""A config is validated when made, and what is wrong with it is said in one line."""

import os

import pytest
import yaml

from configs.loading import dump_config, load_config, override_config, parse_config
from contracts.errors import InputError
from distributed.job_paths import resolve_paths


@pytest.mark.parametrize(
    ("override", "section", "name", "value"),
    [
        ("run=/x/exp #2", None, "run", "/x/exp #2"),
        ("run=/x/a: b", None, "run", "/x/a: b"),
        ("run=010", None, "run", "010"),
        ("run=null", None, "run", None),
        ("run=~", None, "run", "~"),
        ("run=[x]", None, "run", "[x]"),
        ("dataset=[x]", None, "dataset", "x"),
        ("dataset=[x, /a b/y]", None, "dataset", ("x", "/a b/y")),
        ("graph=[s3://bucket/x,'7']", None, "graph", ("s3://bucket/x", "7")),
        ("dataset=/x, y #2: z", None, "dataset", "/x, y #2: z"),
        ("seed=010", None, "seed", 10),
        ("training.learning_rate=1e-3", "training", "learning_rate", 0.001),
        ("training.learning_rate=.5", "training", "learning_rate", 0.5),
        ("training.gradient_clip=1", "training", "gradient_clip", 1.0),
        ("evaluation.mask_history=True", "evaluation", "mask_history", True),
        ("cluster.use_gpu=auto", "cluster", "use_gpu", "auto"),
        ("cluster.use_gpu=false", "cluster", "use_gpu", False),
        ("cluster.num_workers=[1, 4]", "cluster", "num_workers", (1, 4)),
        ("cluster.address=1.2.3.4:6379", "cluster", "address", "1.2.3.4:6379"),
    ],
)
def test_the_schema_knows_how_a_value_is_read(override, section, name, value):
    config = load_config(None, [override])
    assert getattr(getattr(config, section) if section else config, name) == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seed: 1:30", "seed='1:30': must be a whole number in digits"),
        ("training: {batch_size: yes}", "training.batch_size='yes': must be a whole number in digits"),
        ("training: {batch_size: true}", "training.batch_size=True: must be a whole number in digits"),
        ("training: {batch_size: '64'}", "training.batch_size='64': must be a whole number in digits"),
        ("training: {learning_rate: '1'}", "training.learning_rate='1': must be a number, such as 0.1"),
        ("evaluation: {mask_history: yes}", "evaluation.mask_history='yes': must be true or false"),
        ("evaluation: {mask_history: 1}", "evaluation.mask_history=1: must be true or false"),
        ("model: {mdsrec: {rho: {text: true}}}", "model.mdsrec.rho.text=True: must be a number, such as 0.1"),
        ("evaluation: {ks: [10, yes]}", "evaluation.ks.1='yes': must be a whole number in digits"),
        ("seed: 0x10", "seed='0x10': must be a whole number in digits"),
        ("seed: !!int 0x10", "'0x10' is not a number"),
        ("evaluation: {mask_history: !!bool yes}", "'yes' is not true or false"),
    ],
)
def test_numbers_and_truth_are_written_in_one_way(tmp_path, content, message):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(InputError) as refused:
        load_config(str(path))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("training.lr", "training.learning_rate"),
        ("lr", "training.learning_rate"),
        ("training.epochs", "training.max_epochs"),
        ("training.batchsize", "training.batch_size"),
        ("training.wd", "training.weight_decay"),
        ("model.embedding_dim", "model.dim"),
        ("model.n_layers", "model.num_layers"),
        ("evaluation.k", "evaluation.ks"),
        ("training.draws", "training.negatives.draws"),
    ],
)
def test_the_knob_that_was_meant_is_named(key, meant):
    with pytest.raises(InputError, match=f"unknown key {key}; did you mean {meant}\\?"):
        load_config(None, [f"{key}=1"])


def test_a_value_is_blamed_on_where_it_was_set(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("training: {batch_size: 0}\n")
    with pytest.raises(InputError) as refused:
        load_config(str(path), ["evaluation.mask_history=yes", "training.patience=0"])
    least = "must be at least 1"
    assert str(refused.value) == (
        f"config ({path}): training.batch_size=0: {least}; --set training.patience=0: {least}; "
        "--set evaluation.mask_history='yes': must be true or false"
    )


def test_a_value_given_to_a_trained_run_is_blamed_on_itself():
    with pytest.raises(InputError, match=r"^--set evaluation\.ks='10,20': must be a list, such as \[10, 20\]"):
        override_config(load_config(None), ["evaluation.ks=10,20"], ("evaluation",))


def test_text_that_yaml_would_read_otherwise_survives_a_saved_config(tmp_path):
    path = tmp_path / "config.yaml"
    for text in ("010", "1:30", "yes", "~", "1e-3", "2024-01-01", " x #1", "a: b"):
        config = load_config(None, [f"run={text}"])
        path.write_text(dump_config(config))
        assert load_config(str(path)) == config
        assert yaml.safe_load(path.read_text())["run"] == text  # and so do other readers


def test_a_dumped_config_reads_back_equal(tmp_path):
    config = load_config(None, ["model.dim=32", "training.gradient_clip=1.5", "model.mdsrec.rho={text: 1.0}"])
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(str(path)) == config


def test_overrides_win_over_the_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("model: {dim: 16}\nseed: 3\n")
    config = load_config(str(path), ["model.dim=32"])
    assert (config.model.dim, config.seed) == (32, 3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.nmae=sasrec", "unknown key model.nmae; did you mean model.name?"),
        ("modle.name=sasrec", "unknown key modle; did you mean model?"),
        ("model.sasrec.objective=next", "unknown key model.sasrec; sasrec has no knobs of its own"),
        ("dropout=0.1", "unknown key dropout; did you mean model.dropout?"),
        ("model.dropout=1.5", "model.dropout=1.5: must be below 1"),
        ("model.dim=63", "dim=63 is not a multiple of model.num_heads=4"),
        ("training.metric=ndcg@3", "is not one of recall@10"),
        ("training.negatives.hard_share=1", "training.negatives.hard_share=1: must be below 1"),
        ("training.negatives.hard_share=0.5", "which is unset; set draws too"),
        ("training.negatives={draws: 0, hard_share: 0.5}", "which is 0; set draws too"),
        ("training={loss: gbce, negatives: {draws: 0}}", "training.negatives.draws=0: the loss depends on the share"),
        ("training.batch_size=many", "training.batch_size='many'"),
        ("dataset", "expected section.field=value"),
        ("dataset.path=x", "dataset"),
        ("seed.x=1", "seed"),
        ("model={", "not valid YAML"),
    ],
)
def test_a_bad_override_names_field_value_and_next_move(override, message):
    with pytest.raises(InputError, match=r"^(config|--set)") as error:
        load_config(None, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: [", "not valid YAML"),
        ("- a\n", "expected sections"),
        ("run: !!python/object:os.system x\n", "not valid YAML"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"bad\.yaml") as error:
        load_config(str(path))
    assert message in str(error.value)
    with pytest.raises(InputError, match="cannot be read"):
        load_config(str(tmp_path / "missing.yaml"))


def test_contrastive_training_refuses_a_loss_that_it_would_not_use():
    contrastive = ["model.name=msm4sr", "model.msm4sr.objective=contrastive"]
    assert load_config(None, contrastive).training.loss == "cross_entropy"
    with pytest.raises(InputError, match=r"loss=gbce, but model\.msm4sr\.objective=contrastive has losses of its own"):
        load_config(None, [*contrastive, "training.loss=gbce"])


def test_hard_negatives_need_a_model_with_a_graph():
    hard = ["training.negatives.draws=9", "training.negatives.hard_share=0.5"]
    assert load_config(None, hard).training.negatives.hard_share == 0.5
    with pytest.raises(
        InputError, match=r"hard_share=0\.5 draws neighbours .*model\.name=sasrec trains without a graph; set it to 0"
    ):
        load_config(None, [*hard, "model.name=sasrec"])


def test_ablations_switch_their_knobs_and_nothing_else():
    plain = load_config(None)
    dis, cre, mrgc, ica = (load_config(None, [f"ablation={name}"]) for name in ("DIS", "CRE", "MRGC", "ICA"))
    assert not dis.graph_options.distance_weighting
    assert (cre.graph_options.mu, cre.model.mdsrec.mu_id) == (0.0, 0.0)
    assert mrgc.model.mdsrec.item_view == "features"
    assert not ica.model.mdsrec.center_attention
    for config in (dis, cre, mrgc, ica):
        assert config.training == plain.training
        assert config.model.model_copy(update={"mdsrec": plain.model.mdsrec}) == plain.model


def test_a_trained_run_keeps_its_model():
    config = load_config(None)
    assert override_config(config, ["evaluation.mask_history=true"], ("evaluation",)).evaluation.mask_history
    with pytest.raises(InputError, match="fixed by the run"):
        override_config(config, ["model.dim=8"], ("evaluation",))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.loader_workers=-1", "--set training.loader_workers=-1: must be at least 0, or must be 'auto'"),
        (
            "evaluation.held_items_gib=x",
            "--set evaluation.held_items_gib='x': must be a number, such as 0.1 or 1e-3, or must be 'auto'",
        ),
    ],
)
def test_a_value_of_none_of_several_types_is_one_problem_of_the_knob(override: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_config(None, [override])
    assert str(caught.value) == said


def test_several_datasets_are_saved_as_a_list_and_read_back():
    config = load_config(None, ["dataset=[/a, /b]", "graph=[/g]"])
    assert config.graph == "/g"
    assert "dataset:\n- /a\n- /b\n" in dump_config(config)
    tree = yaml.safe_load(dump_config(config))
    assert parse_config(tree, "the file") == config
    assert resolve_paths(load_config(None, ["dataset=[a, s3://bucket/b]"])).dataset == (
        f"{os.getcwd()}/a",
        "s3://bucket/b",
    )
