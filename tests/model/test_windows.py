"""One causal forward of a window against one forward per prefix: values, gradients, memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.schema import ModelConfig
from contracts.batch import Batch, SequenceGroup
from contracts.item_plan import ItemPlan
from model.blocks import center_chunks
from model.blocks.center_memory import stored_bytes
from model.blocks.sequence_groups import Sequences, in_groups
from model.cpu import dispatch
from model.protocol import CatalogueInfo
from model.system import RecommenderSystem
from model.zoo import build_model
from tests.model import small_case as case
from tests.model.test_mdsrec import SHAPES, SWITCHES
from tests.systems import CAUSAL, without_noise

GROUPS = [3, 2, 4]


def some_windows(seed: int = 0) -> tuple[list[list[int]], list[list[int]]]:
    """Three groups: of whole windows, of windows' last states only, and of both."""
    rng = np.random.default_rng(seed)
    lengths, counts = [6, 5, 6, 6, 4, 1, 3, 5, 2], [6, 5, 6, 2, 3, 1, 1, 4, 2]
    sequences = [[int(i) for i in rng.integers(0, case.NUM_ITEMS, n)] for n in lengths]
    return sequences, [[int(i) for i in rng.integers(0, case.NUM_ITEMS, n)] for n in counts]


def quiet(switches: dict[str, Any]) -> dict[str, Any]:
    return {**switches, "gumbel_noise": False, "gumbel_at_evaluation": False}


def loss_and_gradients(system: RecommenderSystem, plan: ItemPlan, batch: Batch) -> list[Tensor]:
    loss = case.loss(system, plan, batch)
    return [loss, *torch.autograd.grad(loss, list(system.parameters()))]


def check_equal(system: RecommenderSystem, seed: int = 0) -> None:
    plan = case.plan(case.catalogue(2), system.recommender.needs)
    sequences, targets = some_windows(seed)
    rows = loss_and_gradients(system, plan, case.batch(*case.prefixes_of(sequences, targets)))
    together = loss_and_gradients(system, plan, case.windows(sequences, targets, 3, group_sizes=GROUPS))
    for one, other in zip(together, rows, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert all(gradient.any() for gradient in rows)


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_windows_equal_prefix_rows(switches: dict[str, Any]) -> None:
    check_equal(case.mdsrec_system(case.catalogue(2), case.config(mdsrec=quiet(switches))))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_windows_equal_prefix_rows_in_every_shape(shape: dict[str, Any]) -> None:
    check_equal(case.mdsrec_system(case.catalogue(2), case.config(mdsrec=quiet({}), **shape)))


@pytest.mark.parametrize("name", CAUSAL)
def test_windows_equal_prefix_rows_in_every_causal_system(name: str) -> None:
    table = np.random.default_rng(0).normal(size=(case.NUM_ITEMS, case.DIM))
    cat = case.catalogue(2)
    sections = {name: without_noise(name)} if without_noise(name) else {}
    model = build_model(case.config(name, **sections), cat.info).double()
    check_equal(RecommenderSystem(case.Rows(table), case.shaken(model)))


@pytest.mark.parametrize("learn_repeats", [False, True])
def test_windows_equal_prefix_rows_in_sasrec(learn_repeats: bool) -> None:
    table = np.random.default_rng(0).normal(size=(case.NUM_ITEMS, case.DIM))
    config = case.config("sasrec", num_layers=3, learn_repeats=learn_repeats)
    model = build_model(config, CatalogueInfo(num_items=case.NUM_ITEMS)).double()
    check_equal(RecommenderSystem(case.Rows(table), case.shaken(model)))


@pytest.mark.parametrize(("rows", "states"), [(1, 1), (7, 2), (24, 4), (10**9, 10**9)])
@pytest.mark.parametrize("gib", [0.0, 1.0])
def test_chunks_and_recomputation_change_nothing(
    rows: int, states: int, gib: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(center_chunks, "_CHUNK_ROWS", rows)
    monkeypatch.setattr(center_chunks, "_CHUNK_STATES", states)
    options = {**quiet(SWITCHES["separate both"]), "center_memory_gib": gib}
    check_equal(case.mdsrec_system(case.catalogue(2), case.config(mdsrec=options)), seed=4)


def test_recomputing_repeats_noise_and_dropout() -> None:
    found = []
    for gib in (0.0, 1.0):
        config = case.config(mdsrec={"center_dropout": 0.4, "center_memory_gib": gib}, dropout=0.3)
        system = case.mdsrec_system(case.catalogue(2), config).train()
        plan = case.plan(case.catalogue(2), system.recommender.needs)
        torch.manual_seed(7)
        found.append(loss_and_gradients(system, plan, case.windows(*some_windows(), group_sizes=GROUPS)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


def kept_bytes(compute: Callable[[], Tensor]) -> int:
    """What autograd keeps for the backward, each storage once."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = compute()
    assert result.requires_grad
    return sum(storages.values())


@pytest.mark.parametrize(("fused", "feed_forward"), [(True, "transformer"), (False, "transformer"), (True, "literal")])
@pytest.mark.parametrize("length", [4, 40])
def test_the_centres_keep_what_is_stated_and_next_to_nothing_when_recomputed(
    length: int, fused: bool, feed_forward: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_no_compiled_loops", lambda _: "" if fused else "this test says so")
    shape = case.config(dim=32, num_heads=4, max_length=length)
    batch = case.windows([[1] * length] * 20, [[2] * length] * 20)
    kept = {}
    for gib in (0.0, 1.0, None):
        options = {"center_attention": gib is not None, "gumbel_noise": False, "center_memory_gib": gib or 0.0}
        options["center_feed_forward"] = feed_forward
        config = ModelConfig(**{**shape.model_dump(), "mdsrec": {**shape.mdsrec.model_dump(), **options}})
        model = build_model(config, case.catalogue(2).info)
        system = RecommenderSystem(case.Rows(np.ones((case.NUM_ITEMS, 32), np.float32)), model)
        plan = case.plan(case.catalogue(2), model.needs)
        plan = plan.map(lambda t: t.float() if t.is_floating_point() else t)
        kept[gib] = kept_bytes(lambda system=system, plan=plan: case.loss(system, plan, batch))
    stated = 2 * stored_bytes(shape, case.NUM_CENTERS, batch.groups, fused and feed_forward == "transformer")
    if feed_forward == "transformer":
        assert kept[1.0] - kept[None] == pytest.approx(stated, rel=0.15), (kept, stated)
    else:  # stated as for torch's operators throughout, and attention to few keys is fused all the same
        assert 0.6 * stated < kept[1.0] - kept[None] < 1.15 * stated, (kept, stated)
    assert kept[0.0] - kept[None] < 0.1 * stated


def test_groups_are_read_and_put_back_in_the_order_of_the_targets() -> None:
    sequences, targets = some_windows()
    batch = case.windows(sequences, targets, group_sizes=GROUPS)
    order = torch.randperm(len(batch.states))
    batch.states = batch.states[order]
    rows = torch.arange(case.NUM_ITEMS, dtype=torch.float64)[:, None]
    shapes = []

    def compute(group: Sequences, items: list[Tensor]) -> list[Tensor]:
        shapes.append(SequenceGroup(len(group.lengths), group.length, group.num_queries))
        last = group.last_items()
        assert group.visible().sum(2).tolist() == (last + 1).tolist()
        return [items[0].gather(1, last[:, :, None]), (last + 1)[:, :, None]]

    last_items, counts = in_groups(batch, [rows], compute)
    expected = [history for history, _ in zip(*case.prefixes_of(sequences, targets), strict=True)]
    assert last_items.squeeze(1).tolist() == [float(expected[n][-1]) for n in order]
    assert counts.squeeze(1).tolist() == [len(expected[n]) for n in order]
    assert tuple(shapes) == batch.groups
