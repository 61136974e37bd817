"""Every system's branches for CUDA, on a pretended device: losses, gradients, waits, and mixed devices.

A wait of the host for the device raises, unless it is named here, and so does mixing tensors of both devices. What a
pretended device is, and what it cannot show, says `tests/pretended_device`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs.systems.registry import SYSTEMS
from data.sampling.grouping import ON_CPU, Grouping, grouping_for
from distributed.training.epoch_work import StoredFeatures
from model.blocks import center_blocks, center_chunks, losses
from model.blocks.recompute import recomputed
from model.cpu import dispatch
from tests.model.pretended_steps import Trained, check_close
from tests.pretended_device import CUDA, pretended_device
from tests.systems import CAUSAL, TRAINED, settings_without_noise

pytestmark = pytest.mark.long  # many cases of about half a second

CPU = torch.device("cpu")
# The only code of a model that waits for the device: MISSRec asks which items have a feature, before each epoch.
MAY_WAIT = ["nonzero.default model/missrec.py _points"]
CONTRASTIVE = {
    "unisrec": ("model.unisrec.objective=contrastive", "model.unisrec.use_ids=false"),
    "msm4sr": ("model.msm4sr.objective=contrastive", "model.msm4sr.mixup=0"),
    "missrec": ("model.missrec.objective=contrastive", "model.missrec.use_ids=false"),
}


def sampled(name: str) -> tuple[str, ...]:
    """Return settings of a sampled softmax. With masks, targets of the batch cannot be candidates."""
    return ("training.negatives.draws=15", f"training.negatives.in_batch={str(name != 'bert4rec').lower()}")


def forms() -> list[tuple[str, tuple[str, ...]]]:
    """Return the systems with settings, of every form of a batch that they have."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for name in TRAINED:
        own = settings_without_noise(name)
        found += [(name, (*own,)), (name, (*own, *sampled(name), "model.learn_repeats=true"))]
        found += [(name, (*own, f"training.unit={unit}", *sampled(name))) for unit in SYSTEMS[name].units]
        found += [(name, (*own, "training.loss=gbce"))]
        found += [(name, (*own, *more)) for system, more in CONTRASTIVE.items() if system == name]
    found.append(("bert4rec", (*settings_without_noise("bert4rec"), "model.bert4rec.rows=windows")))
    of_mdsrec = settings_without_noise("mdsrec")
    for more in (
        (*sampled("mdsrec"), "model.mdsrec.center_samples=3"),
        (
            "model.mdsrec.share_centers=false",
            "model.mdsrec.share_modalities=false",
            "model.mdsrec.center_residual=false",
        ),
        ("model.mdsrec.item_view=features", "model.mdsrec.center_feed_forward=literal"),
        ("model.dim=16", *sampled("mdsrec")),  # heads as wide as attention kernels need
        ("model.dim=16", "model.mdsrec.center_memory_gib=0"),
    ):
        found.append(("mdsrec", (*of_mdsrec, *more)))
    return found


def label(form: object) -> str:
    if isinstance(form, str):
        return form
    assert isinstance(form, tuple)
    return ", ".join(x.removeprefix("training.").removeprefix("model.") for x in form if not x.endswith(("=0", "=0.0")))


@pytest.mark.parametrize(("name", "settings"), forms(), ids=label)
def test_loss_and_gradients_are_those_of_the_cpu(folders: Path, name: str, settings: tuple[str, ...]) -> None:
    """In float64, with several groups of a GPU on the device. MDSRec also has a single one, and the CPU's."""
    trained = Trained.of(folders, name, *settings, dtype=torch.float64)
    expected = trained.results(trained.step(ON_CPU), CPU)
    several = Grouping(share=0.0, floor=1, joins=True, multiple=2, longest=8)
    for grouping in (several, *([grouping_for("cuda", 8), ON_CPU] if name == "mdsrec" else [])):
        step = trained.step(grouping)
        assert len(step.batch.groups) > 1 or grouping is not several
        with pretended_device(may_wait=()) as device:
            found = trained.results(step, CUDA)
            assert device.counts.num_launches > 20
            assert device.counts.num_waits == 0
        check_close(found, expected, 1e-9)


@pytest.mark.parametrize("name", [name for name in TRAINED if name not in ("mdsrec", "gru4rec", "gru4recf")])
@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
def test_equal_operators_give_equal_bits(
    folders: Path, name: str, bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 and under autocast, with the same groups on both, and without the CPU's faster paths.

    MDSRec's centres and recurrent layers have other operators on CUDA.
    """
    monkeypatch.setattr(dispatch, "_no_float32_on_cpu", lambda _: "this test says so")
    trained = Trained.of(folders, name, *settings_without_noise(name), *sampled(name))
    step = trained.step(ON_CPU)
    expected = trained.results(step, CPU, bfloat16)
    with pretended_device():
        found = trained.results(step, CUDA, bfloat16)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("dim", [8, 16])
def test_mdsrec_differs_under_bfloat16_by_its_rounding(folders: Path, dim: int) -> None:
    """Its centres take another path on CUDA, which rounds at other places."""
    trained = Trained.of(folders, "mdsrec", *settings_without_noise("mdsrec"), *sampled("mdsrec"), f"model.dim={dim}")
    exact = trained.results(trained.step(ON_CPU), CPU)
    rounded = trained.results(trained.step(ON_CPU), CPU, bfloat16=True)
    with pretended_device():
        found = trained.results(trained.step(grouping_for("cuda", 8)), CUDA, bfloat16=True)

    def error(of: dict[str, torch.Tensor]) -> float:
        return float(sum((of[key].double() - exact[key].double()).square().sum() for key in exact)) ** 0.5

    assert 0 < error(found) < 1.5 * error(rounded)


def test_few_logits_at_a_time_give_the_same(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = Trained.of(
        folders, "missrec", *settings_without_noise("missrec"), *sampled("missrec"), dtype=torch.float64
    )
    expected = trained.results(trained.step(ON_CPU), CPU)
    monkeypatch.setattr(losses, "_MAX_LOGITS_ON_GPU", 300)
    with pretended_device():
        found = trained.results(trained.step(ON_CPU), CUDA)
    check_close(found, expected, 1e-9)


@pytest.mark.parametrize(("blocks", "rows"), [(True, 100), (True, 2**19), (False, 100)])
def test_recomputing_draws_the_same_noise_again(
    folders: Path, blocks: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gate noise and dropout are on. With other noise in the second computation, gradients would be others."""
    if not blocks:
        plain = dispatch.Choice(dispatch.Path.PLAIN, "this test says so")
        monkeypatch.setitem(dispatch._CHOICES, dispatch.Part.CENTER_STATES, lambda _: plain)
    monkeypatch.setattr(center_blocks, "_ROWS_AT_ONCE", rows)
    monkeypatch.setattr(center_chunks, "_CHUNK_ROWS", rows)
    settings = ("model.mdsrec.center_dropout=0.4", "model.mdsrec.center_memory_gib=0", "model.dropout=0.3")
    trained = Trained.of(folders, "mdsrec", *settings, *sampled("mdsrec"), dtype=torch.float64)
    with pretended_device() as device:
        step = trained.step(grouping_for("cuda", 8))
        found = trained.results(step, CUDA)
        launches = device.counts.num_launches
        for module in (center_blocks, center_chunks):
            monkeypatch.setattr(module, "recomputed", lambda compute, *args: compute(*args))
        device.counts.restart()
        kept = trained.results(step, CUDA)
        assert device.counts.num_launches < launches
    check_close(found, kept, 1e-9)


def test_a_recomputation_without_a_tensor_of_its_device_is_refused() -> None:
    with pretended_device():
        x = torch.ones(3).to(CUDA).requires_grad_()
        assert recomputed(lambda rows, _: rows[0] * 2, [x], None).device == CUDA
        for arguments in ((), (object(),), ([torch.ones(1)],)):
            with pytest.raises(AssertionError, match="random numbers"):
                recomputed(lambda *_: x * 2, *arguments)


@pytest.mark.parametrize("name", TRAINED)
def test_an_empty_part_of_a_step_is_trained_too(folders: Path, name: str) -> None:
    """A rank without sequences must reach every parameter in its backward, or the other ranks would wait for it."""
    trained = Trained.of(folders, name, *sampled(name), dtype=torch.float64)
    full, empty = (trained.step(grouping_for("cuda", 8), world=world) for world in (1, 1000))
    assert len(empty.batch.lengths) == 0
    with pretended_device():
        found = trained.results(empty, CUDA)
        assert found.keys() == trained.results(full, CUDA).keys()
    assert float(found["loss"]) == 0


@pytest.mark.parametrize("name", CAUSAL)
def test_dropout_and_noise_run_without_waiting(folders: Path, name: str) -> None:
    trained = Trained.of(folders, name, *sampled(name))
    with pretended_device():
        found = trained.results(trained.step(grouping_for("cuda", 8)), CUDA)
    assert all(bool(value.isfinite().all()) for value in found.values())


def test_interests_are_found_with_one_wait_for_each_block_of_items(folders: Path) -> None:
    trained = Trained.of(folders, "missrec")
    with pretended_device(may_wait=MAY_WAIT) as device, torch.no_grad():
        model = trained.recommender.to(CUDA).eval()
        model.begin_epoch(StoredFeatures(trained.inputs, CUDA))
        assert device.counts.num_waits == 2
