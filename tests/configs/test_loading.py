"""A config is validated when made, and what is wrong with it is said in one line."""

import pytest

from configs.errors import InputError
from configs.loading import dump_config, load_config, override_config


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
        ("dropout=0.1", "unknown key dropout; did you mean model.dropout?"),
        ("model.dropout=1.5", "model.dropout=1.5: Input should be less than 1"),
        ("model.dim=63", "dim=63 is not a multiple of model.num_heads=4"),
        ("training.metric=ndcg@3", "is not one of recall@10"),
        ("training.negatives.hard_share=1", "training.negatives.hard_share=1: Input should be less than 1"),
        ("training.negatives.hard_share=0.5", "which is unset; set draws too"),
        ("training.negatives={draws: 0, hard_share: 0.5}", "which is 0; set draws too"),
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


def test_hard_negatives_need_a_model_with_a_graph():
    hard = ["training.negatives.draws=9", "training.negatives.hard_share=0.5"]
    assert load_config(None, hard).training.negatives.hard_share == 0.5
    with pytest.raises(
        InputError, match=r"hard_share=0\.5 draws neighbours .*model\.name=sasrec has none; set it to 0"
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
