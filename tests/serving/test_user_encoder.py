"""The user encoder and its exported files give the vectors that ranking uses, for every trained system."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch

from contracts.errors import InputError, TaskFailed
from distributed.inference.vectors import Encoder
from distributed.inputs import build_system, open_inputs
from distributed.sharding import unsharded
from distributed.world import World
from serving import user_encoder as module
from serving.user_encoder import export_onnx, export_program, random_histories, user_encoder
from tests.distributed.runs import SAMPLED, config_of
from tests.sequences import Sequences
from tests.systems import TRAINED

TOLERANCE = 1e-5  # rounding in small models; `serving.user_encoder.TOLERANCE` leaves room for large ones
LENGTH = 8  # model.max_length of `config_of`
VARIANTS = [
    *((name, ()) for name in TRAINED),
    ("mdsrec", (*SAMPLED, "model.learn_repeats=true")),
    ("mdsrec", ("model.mdsrec.item_view=features", "model.mdsrec.share_modalities=true")),
    ("mdsrec", ("model.mdsrec.center_residual=true", "model.mdsrec.share_centers=false", "model.mdsrec.mu_id=0")),
    ("bert4rec", ("model.bert4rec.position_zero=latest", "model.bert4rec.output_bias=false")),
    ("msm4sr", ("model.msm4sr.objective=contrastive",)),
    ("mdsrec", ("model.mdsrec.center_attention=false", "model.mdsrec.modalities=[text]")),
    ("unisrec", ("model.unisrec.use_ids=false",)),
    ("missrec", ("model.missrec.use_ids=false", "model.missrec.missing_features=bias")),
    ("fdsa", ("model.fdsa.features=[text]",)),
    ("missrec", ("model.missrec.objective=contrastive", "model.missrec.use_ids=false")),
    ("msm4sr", ("model.msm4sr.features=[text]",)),
]
# Those that record other operators than their system's defaults do.
FEW = ("mdsrec", "gru4rec")  # the systems whose files `make test` compares
RECORDED = VARIANTS[len(TRAINED) : len(TRAINED) + 5]


def label(value):
    return value if isinstance(value, str) else "-".join(setting.split(".")[-1] for setting in value) or "defaults"


def opened(folders, tmp_path, name, *settings):
    """Return the inputs, config and system of a run whose weights are random, and large enough to matter."""
    config = config_of(folders, tmp_path / "run", name, "model.init_std=0.3", *settings)
    inputs = open_inputs(config)
    system = unsharded(build_system(config, inputs), torch.device("cpu")).system.eval()
    with torch.no_grad():
        for weight in system.parameters():
            start = weight if weight.ndim == 1 else 0.0  # norms stay near 1; the table has no values yet
            weight.copy_(start + 0.3 * torch.randn_like(weight))
        for buffer_name, buffer in system.recommender.named_buffers():
            if buffer_name == "interests":
                buffer[1:] = torch.randn_like(buffer[1:])
            elif buffer_name == "interest_of":  # some items have no interest, and some share one
                buffer.copy_(torch.randint(0, min(6, len(system.recommender.interests)), buffer.shape))
    return inputs, config, system


class Ranking:
    """The vectors of users and items as ranking computes them, for histories that are given as sequences."""

    def __init__(self, inputs, config, system):
        self._encoder = Encoder(system=system, inputs=inputs, config=config, world=World.alone(torch.device("cpu")))
        if self._encoder.streams_centers:
            self._encoder.item_blocks(held_bytes=0, on_round=lambda: None)
        self._num_items = inputs.dataset.num_items

    def users(self, histories):
        """Return the vectors of users with these items, a list of arrays, of which ranking may leave out the oldest."""
        lengths = np.array([len(history) for history in histories])
        ends = np.concatenate([[0], np.cumsum(lengths)])
        data = Sequences(self._num_items, len(histories), ends, np.concatenate(histories), lengths, lengths)
        with torch.no_grad():
            return self._encoder.users(data, np.arange(len(histories)), lengths)

    def items(self):
        with torch.no_grad():
            return torch.cat(self._encoder.items_by_channel(np.arange(self._num_items)), dim=1)


def histories_of(items, lengths):
    return [row[:length] for row, length in zip(items.numpy(), lengths.tolist(), strict=True)]


def padded(histories, padding):
    """Return the last LENGTH items of each history, padded on the right, and their numbers."""
    kept = [history[-LENGTH:] for history in histories]
    items = [np.pad(history, (0, LENGTH - len(history)), constant_values=padding) for history in kept]
    return torch.from_numpy(np.stack(items)), torch.tensor([len(history) for history in kept])


def assert_close(found, expected):
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert ((found - expected).abs().amax(1) <= TOLERANCE * expected.abs().amax(1)).all()


def assert_same_lists(found, expected, items):
    """The 20 items with the highest scores are the same, except where scores are closer than rounding."""
    scores = expected @ items.T
    listed = scores.gather(1, (found @ items.T).topk(20).indices)
    limit = 10 * TOLERANCE * scores.abs().amax(1, keepdim=True)
    assert ((listed - scores.topk(20).values).abs() <= limit).all()


@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=label)
def test_vectors_are_those_of_ranking(folders, tmp_path, name, settings):
    inputs, config, system = opened(folders, tmp_path, name, *settings)
    encoder, ranking = user_encoder(system, inputs, config), Ranking(inputs, config, system)
    rng = np.random.default_rng(1)
    histories = [rng.integers(0, encoder.num_items, length) for length in range(1, LENGTH + 3)]
    expected = ranking.users(histories)
    assert_close(encoder(*padded(histories, padding=0)), expected)
    assert_close(encoder(*padded(histories[3:], padding=-1)), expected[3:])  # whatever the padding is
    for number in (0, 4, LENGTH + 1):
        assert_close(encoder(*padded(histories[number : number + 1], padding=0)), expected[number : number + 1])
    # The vectors depend on each item of the input, so that the comparison above means something.
    changed = [np.concatenate([[(history[0] + 1) % encoder.num_items], history[1:]]) for history in histories]
    difference = (ranking.users(changed) - expected).abs().amax(1)[:LENGTH]
    assert (difference > 100 * TOLERANCE * expected.abs().amax(1)[:LENGTH]).any()
    assert not encoder(*padded(histories, padding=0)).requires_grad


@pytest.mark.parametrize("name", TRAINED)
def test_an_encoder_holds_nothing_that_users_do_not_read(folders, tmp_path, name):
    """The bytes are those that the docstring of `UserEncoder` names, and no raw feature is among them."""
    inputs, config, system = opened(folders, tmp_path, name)
    encoder = user_encoder(system, inputs, config)
    width = {"fdsa": 2, "mdsrec": 3, "gru4recf": 3, "mmmlp": 3, "msm4sr": 3}.get(name, 1)
    assert encoder.floats_per_item == width * config.model.dim
    assert all(gradient is None for gradient in (weight.grad for weight in system.parameters()))
    assert not any(len(weight) == encoder.num_items for weight in encoder.parameters() if weight.numel())


@pytest.mark.long
@pytest.mark.parametrize("name", FEW)
def test_an_exported_program_gives_the_same_lists(folders, tmp_path, name):
    check_program(folders, tmp_path, name)


@pytest.mark.slow
def test_exported_programs_and_onnx_models_of_all_systems_give_the_same_lists(folders, tmp_path):
    for name in TRAINED:
        for check in (check_program, check_onnx):
            (tmp_path / name / check.__name__).mkdir(parents=True)
            check(folders, tmp_path / name / check.__name__, name)


def assert_gives_the_same_lists(users, encoder, ranking):
    """`users`, which runs an exported file, gives the lists of ranking for 1,000 users, and vectors for fewer."""
    items, lengths = random_histories(encoder, 1000, seed=5)
    expected = ranking.users(histories_of(items, lengths))
    assert_same_lists(users(items, lengths), expected, ranking.items())
    for count in (1, 7):
        assert_close(users(items[:count], lengths[:count]), expected[:count])


def check_program(folders, tmp_path, name):
    inputs, config, system = opened(folders, tmp_path, name)
    ranking = Ranking(inputs, config, system)
    encoder = user_encoder(system, inputs, config)
    export_program(encoder, tmp_path / "users.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["users.pt2"]
    users = torch.export.load(tmp_path / "users.pt2").module()
    assert_gives_the_same_lists(users, encoder, ranking)


@pytest.mark.long
@pytest.mark.parametrize("name", FEW)
def test_an_onnx_model_gives_the_same_lists(folders, tmp_path, name):
    check_onnx(folders, tmp_path, name)


def check_onnx(folders, tmp_path, name):
    inputs, config, system = opened(folders, tmp_path, name)
    ranking = Ranking(inputs, config, system)
    encoder = user_encoder(system, inputs, config)
    export_onnx(encoder, tmp_path / "users.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["users.onnx"]
    session = onnxruntime.InferenceSession(str(tmp_path / "users.onnx"), providers=["CPUExecutionProvider"])

    def users(items, lengths):
        feeds = {"items": items.numpy(), "lengths": lengths.numpy()}
        return torch.from_numpy(session.run(["users"], feeds)[0])

    assert_gives_the_same_lists(users, encoder, ranking)


@pytest.mark.slow
def test_other_settings_can_be_exported(folders, tmp_path):
    """Both exports compare the file with the encoder themselves."""
    for number, (name, settings) in enumerate(RECORDED):
        (tmp_path / str(number)).mkdir()
        check_settings(folders, tmp_path / str(number), name, settings)


def check_settings(folders, tmp_path, name, settings):
    inputs, config, system = opened(folders, tmp_path, name, *settings)
    export_program(user_encoder(system, inputs, config), tmp_path / "users.pt2")
    assert (tmp_path / "users.pt2").stat().st_size > 0


ALONE = """
import json, sys, torch
items, lengths, expected = torch.load("inputs.pt")
users = torch.export.load("users.pt2").module()
found = users(items, lengths)
names = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps({"difference": float((found - expected).abs().max() / expected.abs().max()), "modules": names}))
"""


@pytest.mark.long
def test_a_program_needs_pytorch_only(folders, tmp_path):
    inputs, config, system = opened(folders, tmp_path, "unisrec")
    encoder = user_encoder(system, inputs, config)
    export_program(encoder, tmp_path / "users.pt2")
    items, lengths = random_histories(encoder, 9, seed=2)
    torch.save(
        (items, lengths, Ranking(inputs, config, system).users(histories_of(items, lengths))), tmp_path / "inputs.pt"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=120
    )
    found = json.loads(done.stdout)
    assert found["difference"] <= TOLERANCE
    assert not {"model", "serving", "distributed", "torchrec", "contracts", "numba"} & set(found["modules"])


@pytest.mark.long
def test_a_large_onnx_model_has_a_second_file_until_it_is_small_again(folders, tmp_path, monkeypatch):
    from torch.onnx._internal.exporter import _onnx_program

    inputs, config, system = opened(folders, tmp_path, "sasrec")
    encoder = user_encoder(system, inputs, config)
    with monkeypatch.context() as patch:
        patch.setattr(_onnx_program, "_LARGE_MODEL_THRESHOLD", 0)
        export_onnx(encoder, tmp_path / "users.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["users.onnx", "users.onnx.data"]
    assert (tmp_path / "users.onnx.data").stat().st_size > 4 * encoder.num_items * encoder.floats_per_item
    session = onnxruntime.InferenceSession(str(tmp_path / "users.onnx"), providers=["CPUExecutionProvider"])
    items, lengths = random_histories(encoder, 5, seed=2)
    found = session.run(None, {"items": items.numpy(), "lengths": lengths.numpy()})[0]
    assert_close(torch.from_numpy(found), encoder(items, lengths))
    export_onnx(encoder, tmp_path / "users.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["users.onnx"]


@pytest.mark.long
def test_a_file_with_other_vectors_is_not_published(folders, tmp_path, monkeypatch):
    inputs, config, system = opened(folders, tmp_path, "sasrec")
    encoder = user_encoder(system, inputs, config)
    path = tmp_path / "users.pt2"
    path.write_text("an earlier export")
    load = torch.export.load

    def damaged(file):
        program = load(file)
        rows = next(rows for name, rows in program.state_dict.items() if name.startswith("rows_"))
        rows[:, 0] += 1e-2
        return program

    monkeypatch.setattr(torch.export, "load", damaged)
    with pytest.raises(TaskFailed, match="not written, because the exported user encoder of sasrec differs"):
        export_program(encoder, path)
    assert path.read_text() == "an earlier export"
    assert list(tmp_path.iterdir()) == [path]


def test_an_untrained_system_is_refused(folders, tmp_path):
    config = config_of(folders, tmp_path / "run", "popularity")
    inputs = open_inputs(config)
    with pytest.raises(InputError, match=r"model\.name=popularity: has no user encoder"):
        user_encoder(build_system(config, inputs), inputs, config)


def test_random_vectors_are_refused(folders, tmp_path):
    inputs, config, system = opened(folders, tmp_path, "mdsrec", "model.mdsrec.gumbel_at_evaluation=true")
    with pytest.raises(InputError, match=r"model\.name=mdsrec: its user vectors are random"):
        user_encoder(system, inputs, config)


@pytest.mark.long
def test_a_system_with_other_operators_is_refused_by_name(folders, tmp_path, monkeypatch):
    inputs, config, system = opened(folders, tmp_path, "sasrec")
    encoder = user_encoder(system, inputs, config)
    forward = type(encoder).forward
    monkeypatch.setattr(
        type(encoder), "forward", lambda self, items, lengths: forward(self, items, lengths)[: int(lengths.max())]
    )
    with pytest.raises(InputError, match=r"model\.name=sasrec: torch\.export cannot record this system's user encoder"):
        export_program(encoder, tmp_path / "users.pt2")
    assert list(tmp_path.iterdir()) == []


def test_missing_onnx_packages_are_named(folders, tmp_path, monkeypatch):
    inputs, config, system = opened(folders, tmp_path, "sasrec")
    encoder = user_encoder(system, inputs, config)
    find = importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(InputError, match="needs the packages onnxscript; install them with: pip install onnx"):
        export_onnx(encoder, tmp_path / "users.onnx")
    assert list(tmp_path.iterdir()) == []
