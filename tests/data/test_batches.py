"""Plans of a few items agree with the catalogue's; batches cover every target once and leak nothing."""

import pickle
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from contracts.batch import Batch
from contracts.errors import InputError
from contracts.item_plan import ItemNeeds, ItemPlan, SparseRows
from data.sampling.batches import TrainBatches
from data.sampling.item_planner import ItemPlanner, positions_of
from data.sampling.spans import TrainingSpans, Unit
from data.sequences import Targets
from tests.data.packed_layout import contexts
from tests.sequences import Sequences


@dataclass
class FakeGraph:
    """A GraphRows in memory."""

    num_items: int
    weights: np.ndarray  # dense O [N, N]
    links: dict[str, np.ndarray] = field(default_factory=dict)
    members: dict[str, np.ndarray] = field(default_factory=dict)
    centers: int = 3

    def cooccurrence_rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = self.weights[items]
        row, column = np.nonzero(rows)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(items)))])
        return indptr, column, rows[row, column].astype(np.float32)

    def neighbors(self, modality: str) -> np.ndarray:
        return self.links[modality]

    def clusters(self, modality: str) -> np.ndarray:
        return self.members[modality]

    def num_centers(self, modality: str) -> int:  # noqa: ARG002
        return self.centers


def random_graph(num_items: int, num_neighbors: int, seed: int) -> FakeGraph:
    rng = np.random.default_rng(seed)
    weights = np.triu(rng.integers(1, 9, (num_items, num_items)) * (rng.random((num_items, num_items)) < 0.2), 1)
    links = rng.integers(0, num_items, (num_items, num_neighbors))
    links[rng.random(links.shape) < 0.3] = -1  # pads anywhere, some rows all pads
    members = rng.integers(-1, 2, num_items)  # centre 2 stays empty
    return FakeGraph(num_items, weights + weights.T, {"image": links}, {"image": members})


def dense(rows: SparseRows) -> torch.Tensor:
    out = torch.zeros(rows.num_rows, rows.num_columns, dtype=torch.float64)
    row = torch.repeat_interleave(torch.arange(rows.num_rows), rows.indptr.diff())
    return out.index_put((row, rows.indices), rows.values.double(), accumulate=True)


def planner_of(graph: FakeGraph, **needs: object) -> ItemPlanner:
    features = {"image": np.arange(graph.num_items * 2, dtype=np.float16).reshape(-1, 2)}
    return ItemPlanner(needs=ItemNeeds(**needs), num_items=graph.num_items, graph=graph, features=features)  # type: ignore[arg-type]


def check_order(plan: ItemPlan, num_items: int) -> None:
    union, roles = plan.union_ids.numpy(), plan.num_roles
    assert union.dtype == np.int64
    assert (np.diff(union[:roles]) > 0).all()
    assert (np.diff(union[roles:]) > 0).all()
    assert len(np.unique(union)) == len(union)
    assert plan.is_catalogue == (roles == num_items)
    for rows in (plan.cooccurrence, *plan.views.values()):
        if rows is not None:
            assert (rows.num_rows, rows.num_columns) == (roles, len(union))
            named = np.unique(rows.indices.numpy())
            assert not len(named) or (named[0] >= 0 and named[-1] < len(union))


cases = st.tuples(st.integers(1, 30), st.integers(1, 4), st.integers(0, 10_000))


@settings(max_examples=60, deadline=None)
@given(cases, st.sampled_from(["mean", "sum"]))
def test_a_few_roles_see_the_rows_of_the_catalogue(case: tuple[int, int, int], scale: str) -> None:
    num_items, num_neighbors, seed = case
    graph = random_graph(num_items, num_neighbors, seed)
    planner = planner_of(graph, cooccurrence=True, views=("image",), view_scale=scale, features=("image",))
    rng = np.random.default_rng(seed + 1)
    roles = np.sort(rng.permutation(num_items)[: rng.integers(0, num_items + 1)])
    table = torch.from_numpy(rng.integers(-9, 9, (num_items, 4)) * 12).double()  # 12: whole means for H up to 4
    whole, plan = planner.catalogue(), planner.plan(roles)
    check_order(whole, num_items)
    check_order(plan, num_items)
    assert plan.union_ids[: plan.num_roles].tolist() == roles.tolist()
    assert whole.union_ids.tolist() == list(range(num_items))
    assert plan.cooccurrence is not None
    assert whole.cooccurrence is not None
    assert torch.equal(dense(whole.cooccurrence), torch.from_numpy(graph.weights).double())
    assert torch.equal(dense(plan.cooccurrence) @ table[plan.union_ids], (dense(whole.cooccurrence) @ table)[roles])
    view = dense(plan.views["image"]) @ table[plan.union_ids]
    assert torch.equal(view, (dense(whole.views["image"]) @ table)[roles])  # float32 times whole: exact in float64
    expected = expected_view(graph.links["image"][roles], table, scale)
    assert torch.equal(view.round(decimals=4), expected)  # rounded, for 1/3 is not a float32
    assert torch.equal(plan.features["image"], whole.features["image"][roles])
    assert plan.features["image"].dtype == torch.float32
    support = set(plan.union_ids[plan.num_roles :].tolist())
    linked = set(graph.links["image"][roles].ravel()) | set(np.nonzero(graph.weights[roles])[1].tolist())
    assert support == linked - set(roles.tolist()) - {-1}


def expected_view(neighbors: np.ndarray, table: torch.Tensor, scale: str) -> torch.Tensor:
    rows = []
    for row in neighbors:
        rows_of_item = table[row[row >= 0]]
        total = rows_of_item.sum(0)
        rows.append(total / max(1, len(rows_of_item)) if scale == "mean" else total)
    return torch.stack(rows).round(decimals=4) if rows else torch.zeros(0, table.shape[1], dtype=torch.float64)


@pytest.mark.parametrize("clustered", ["some", "all"])
def test_exact_centres_bring_every_clustered_item(clustered: str) -> None:
    graph = random_graph(24, 3, 5)
    if clustered == "all":
        graph.members["image"] = np.arange(24) % 2
    planner = planner_of(graph, views=("image",), view_scale="sum", centers=("image",))
    plan, whole = planner.plan(np.array([2, 7])), planner.catalogue()
    members = graph.members["image"]
    assert set(plan.union_ids[: plan.num_roles].tolist()) == {2, 7} | set(np.flatnonzero(members >= 0).tolist())
    assert plan.is_catalogue == (clustered == "all")
    roles = plan.union_ids[: plan.num_roles]
    table = torch.randint(-9, 9, (24, 4), generator=torch.Generator().manual_seed(0)).double()
    ours = dense(plan.centers["image"]) @ (dense(plan.views["image"]) @ table[plan.union_ids])
    theirs = dense(whole.centers["image"]) @ (dense(whole.views["image"]) @ table)
    assert torch.equal(ours, theirs)  # a float32 weight times small whole numbers is exact in float64
    assert plan.centers["image"].num_columns == len(roles)
    sums = dense(plan.centers["image"])
    for center in range(3):
        held = roles[sums[center] > 0].tolist()
        assert held == np.flatnonzero(members == center).tolist()
        assert not held or torch.equal(sums[center].max().float(), torch.tensor(1 / len(held)))


def test_entries_keep_the_graphs_order_in_every_plan() -> None:
    graph = FakeGraph(6, np.zeros((6, 6)), {"image": np.array([[5, 0, 2]] * 6)})
    planner = planner_of(graph, views=("image",))
    for plan in (planner.plan(np.array([2, 4])), planner.catalogue()):
        assert plan.union_ids[plan.views["image"].indices[:3]].tolist() == [5, 0, 2]


def test_pads_empty_rows_and_single_items() -> None:
    graph = FakeGraph(1, np.zeros((1, 1)), {"image": np.array([[0]])}, {"image": np.array([-1])})
    planner = planner_of(graph, cooccurrence=True, views=("image",), centers=("image",))
    plan = planner.catalogue()
    assert plan.is_catalogue
    assert plan.cooccurrence is not None
    assert plan.cooccurrence.indptr.tolist() == [0, 0]
    assert dense(plan.views["image"]).tolist() == [[1.0]]
    assert dense(plan.centers["image"]).tolist() == [[0.0]] * 3
    padded = FakeGraph(3, np.zeros((3, 3)), {"image": np.array([[-1, -1], [2, -1], [0, 1]])})
    view = planner_of(padded, views=("image",)).plan(np.array([0, 1])).views["image"]
    assert (view.indptr.tolist(), view.indices.tolist(), view.values.tolist()) == ([0, 0, 1], [2], [1.0])
    nothing = planner_of(padded, views=("image",), features=("image",)).plan(np.empty(0, dtype=np.int64))
    assert (nothing.num_roles, len(nothing.union_ids), nothing.features["image"].shape) == (0, 0, (0, 2))


def test_the_catalogue_is_planned_once_and_models_without_a_graph_need_none() -> None:
    counts = np.array([5, 0, 2, 7], dtype=np.float32)
    planner = ItemPlanner(
        needs=ItemNeeds(id_rows=False, popularity=True), num_items=4, graph=None, features={}, popularity=counts
    )
    assert planner.catalogue() is planner.catalogue()
    plan = planner.plan(np.array([1, 3]))
    assert (plan.union_ids.tolist(), plan.num_roles, plan.popularity.tolist()) == ([1, 3], 2, [[0.0], [7.0]])
    assert plan.map(lambda tensor: tensor + 1).popularity.tolist() == [[1.0], [8.0]]
    assert planner_of(FakeGraph(2, np.zeros((2, 2)), {})).plan(np.array([0])).popularity is None


@pytest.mark.parametrize(
    ("needs", "spoil", "message"),
    [
        (
            {"views": ("image",)},
            lambda g: g.links["image"].__setitem__((4, 1), 9),
            r"image neighbour of item 4 is 9.*corr",
        ),
        ({"views": ("image",)}, lambda g: g.links["image"].__setitem__((4, 1), -2), "item 4 is -2.*corrupt"),
        ({"centers": ("image",)}, lambda g: g.members["image"].__setitem__(6, 3), "cluster of item 6 is 3.*corrupt"),
        ({"centers": ("image",)}, lambda g: g.members["image"].__setitem__(6, -2), "cluster of item 6 is -2.*corrupt"),
        (
            {"cooccurrence": True},
            lambda g: setattr(g, "weights", np.eye(9, 10, 1)),
            "of item 8 is 9, outside 0..8.*corr",
        ),
    ],
)
def test_a_graph_that_names_what_is_not_there(needs: dict, spoil: object, message: str) -> None:
    graph = random_graph(9, 2, 0)
    spoil(graph)  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        planner_of(graph, **needs).catalogue()


def test_what_is_missing_is_named() -> None:
    graph = random_graph(9, 2, 0)
    with pytest.raises(InputError, match=r"co-occurrence, image neighbours.*build_graph"):
        ItemPlanner(needs=ItemNeeds(cooccurrence=True, views=("image",)), num_items=9, graph=None, features={})
    with pytest.raises(InputError, match="9 items and the dataset 8"):
        ItemPlanner(needs=ItemNeeds(views=("image",)), num_items=8, graph=graph, features={})
    with pytest.raises(InputError, match=r"'text'; the dataset has \['image'\]"):
        planner_of(graph, features=("text",))
    with pytest.raises(InputError, match="3 rows for 9 items"):
        ItemPlanner(needs=ItemNeeds(features=("text",)), num_items=9, graph=graph, features={"text": np.ones((3, 2))})


class HugeGraph:
    """2^33 items whose rows are computed when they are read: item i is linked to N-1-i and (5i+3) mod N."""

    num_items = 2**33

    def cooccurrence_rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.arange(len(items) + 1), self.num_items - 1 - items, np.ones(len(items), np.float32)

    def neighbors(self, modality: str) -> "HugeGraph":  # noqa: ARG002
        return self

    def __getitem__(self, items: np.ndarray) -> np.ndarray:
        return np.stack([self.num_items - 1 - items, (5 * items + 3) % self.num_items], axis=1)


def test_ids_above_32_bits_survive_a_plan_bounded_by_its_union() -> None:
    graph, num_items = HugeGraph(), HugeGraph.num_items
    needs = ItemNeeds(cooccurrence=True, views=("image",))
    roles = np.array([0, 3, 2**31 - 1, 2**31, 2**31 + 1, 2**32, 2**33 - 1])
    plan = ItemPlanner(needs=needs, num_items=num_items, graph=graph, features={}).plan(roles)  # type: ignore[arg-type]
    check_order(plan, num_items)
    assert plan.union_ids[plan.views["image"].indices].reshape(-1, 2).tolist() == graph[roles].tolist()
    assert plan.cooccurrence is not None
    assert plan.union_ids[plan.cooccurrence.indices].tolist() == (num_items - 1 - roles).tolist()
    assert positions_of(plan, np.array([[2**33 - 1, 0], [2**31, 3]])).tolist() == [[6, 0], [3, 1]]


def test_members_of_a_centre_stand_in_the_order_of_their_ids() -> None:
    """Sums round in the order of their terms, so this order decides digits; large enough for an unstable sort."""
    members = np.random.default_rng(0).integers(-1, 3, 2000)
    graph = FakeGraph(2000, np.zeros((1, 1)), {"image": np.full((2000, 1), -1)}, {"image": members})
    rows = planner_of(graph, centers=("image",)).catalogue().centers["image"]
    for center in range(3):
        begin, end = rows.indptr[center : center + 2].tolist()
        assert rows.indices[begin:end].tolist() == np.flatnonzero(members == center).tolist()


def test_roles_are_ascending_and_unique() -> None:
    planner = planner_of(FakeGraph(6, np.zeros((6, 6)), {"image": np.zeros((6, 1), np.int64)}), views=("image",))
    for roles in ([2, 2, 4], [4, 2], [-1, 2], [2, 6]):
        with pytest.raises(AssertionError, match=r"roles must be|role outside"):
            planner.plan(np.array(roles))


def test_positions_are_for_items_with_a_role_only() -> None:
    graph = FakeGraph(6, np.zeros((6, 6)), {"image": np.array([[5, 0, 2]] * 6)})
    planner = planner_of(graph, views=("image",))
    plan = planner.plan(np.array([2, 4]))
    assert positions_of(plan, np.array([4, 2, 4])).tolist() == [1, 0, 1]
    assert positions_of(plan, np.empty(0, dtype=np.int64)).tolist() == []
    assert positions_of(planner.catalogue(), np.array([5, 0])).tolist() == [5, 0]
    for item in (3, 5, -1):  # 5 is in the union, as a neighbour
        with pytest.raises(AssertionError, match="without a role"):
            positions_of(plan, np.array([item]))
    for item in (6, -1):  # beyond the catalogue
        with pytest.raises(AssertionError, match="without a role"):
            positions_of(planner.catalogue(), np.array([item]))


def sequences(num_users: int, num_items: int, seed: int, first_item: int = 0) -> Sequences:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 12, num_users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = first_item + rng.integers(0, num_items, offsets[-1])
    ends = np.maximum(0, lengths - 2), np.maximum(0, lengths - 1)
    return Sequences(first_item + num_items, num_users, offsets, items, *ends)


def train_batches(data: Sequences, rank: int, world: int, batch_size: int = 16, unit: Unit = "windows") -> TrainBatches:
    planner = ItemPlanner(needs=ItemNeeds(), num_items=data.num_items, graph=None, features={})
    return TrainBatches(
        data=data,
        spans=TrainingSpans(data=data, unit=unit, max_length=5, overlap=0.5),
        batch_size=batch_size,
        seed=3,
        rank=rank,
        world=world,
        planner=planner,
    )


@pytest.mark.parametrize("unit", ["windows", "prefixes"])
@pytest.mark.parametrize("world", [1, 3, 64])
def test_ranks_train_every_target_once_from_what_came_before_it(world: int, unit: Unit) -> None:
    data = sequences(30, 50, 6)
    ranks = [train_batches(data, rank, world, unit=unit) for rank in range(world)]
    spans = len(TrainingSpans(data=data, unit=unit, max_length=5, overlap=0.5))
    assert spans % ranks[0].spans_per_step, "the last batch is to be a small one"
    assert {len(batches) for batches in ranks} == {-(-spans // ranks[0].spans_per_step)}
    seen, shares = [], []
    for step in range(len(ranks[0])):
        parts = [batches[step].batch for batches in ranks]
        assert {part.num_global_targets for part in parts} == {sum(len(part.users) for part in parts)}
        shares.append([len(part.lengths) for part in parts])
        assert max(shares[-1]) - min(shares[-1]) <= 1
        for part in parts:
            for user, position, target, before in zip(
                part.users.tolist(), part.positions.tolist(), part.targets.tolist(), contexts(part), strict=True
            ):
                sequence = data.items[data.offsets[user] : data.offsets[user + 1]].tolist()
                assert 1 <= position < data.train_end[user]
                assert target == sequence[position]
                assert before == sequence[position - len(before) : position]
                assert len(before) == min(position, 5) or (unit == "windows" and 5 > len(before) >= 3)
                seen.append((user, position))
    targets = Targets(data, "train")
    users, positions = targets.locate(np.arange(len(targets)))
    assert sorted(seen) == list(zip(users.tolist(), positions.tolist(), strict=True))
    assert sum(map(sum, shares)) == spans
    assert world < 64 or min(map(min, shares)) == 0, "some ranks have nothing to train"


def test_the_global_batch_is_the_same_in_every_world_and_changes_with_the_epoch() -> None:
    data = sequences(30, 50, 1)
    alone, ranks = train_batches(data, 0, 1), [train_batches(data, rank, 7) for rank in range(7)]
    for step in range(len(alone)):
        parts = [batches[step].batch for batches in ranks]
        together = [pair for part in parts for pair in pairs(part)]
        assert sorted(together) == sorted(pairs(alone[step].batch))
        whole, own = zip(*(batches.spans(step) for batches in (alone, *ranks)), strict=True)
        assert np.array_equal(own[0], np.arange(len(whole[0])))
        assert np.array_equal(np.sort(np.concatenate(own[1:])), own[0])
        assert all(np.array_equal(spans.ends, whole[0].ends) for spans in whole)
    before = alone[0].batch.users
    alone.set_epoch(1)
    assert not torch.equal(before, alone[0].batch.users)
    for outside in (-1, len(alone)):
        with pytest.raises(IndexError):
            alone[outside]


def pairs(batch: Batch) -> list[tuple[int, int]]:
    return list(zip(batch.users.tolist(), batch.positions.tolist(), strict=True))


@pytest.mark.parametrize("batch_size", [1, 5, 16, 40])
def test_a_step_has_the_batch_size_of_targets_on_average(batch_size: int) -> None:
    data = sequences(200, 50, 3)
    rows = train_batches(data, 0, 1, batch_size, "prefixes")
    assert {rows[step].batch.num_global_targets for step in range(len(rows) - 1)} == {batch_size}
    windows = train_batches(data, 0, 1, batch_size)
    sizes = [windows[step].batch.num_global_targets for step in range(len(windows))]
    per_span = sum(sizes) / len(TrainingSpans(data=data, unit="windows", max_length=5, overlap=0.5))
    assert windows.spans_per_step >= 1
    # A whole number of spans is as near to the batch size as whole spans come.
    assert abs(windows.spans_per_step * per_span - batch_size) <= per_span / 2 or batch_size < per_span


def test_ranks_get_shares_of_a_like_cost() -> None:
    data = sequences(200, 50, 3)
    for step in range(len(train_batches(data, 0, 1, 60))):
        costs = [int(train_batches(data, rank, 3, 60)[step].batch.lengths.sum()) for rank in range(3)]
        assert max(costs) - min(costs) <= 5, "the longest window"


def test_nothing_to_train_on_is_said() -> None:
    lonely = Sequences(3, 2, np.array([0, 1, 2]), np.array([0, 1]), np.array([1, 1]), np.array([1, 1]))
    for unit in ("windows", "prefixes"):
        with pytest.raises(InputError, match="nothing to train on"):
            train_batches(lonely, 0, 1, unit=unit)  # type: ignore[arg-type]


def test_workers_see_the_epoch_and_give_the_same_batches() -> None:
    data = sequences(20, 50, 2)
    batches = train_batches(data, 1, 2)
    loader = DataLoader(
        batches, batch_size=None, sampler=range(1, len(batches)), num_workers=1, persistent_workers=True
    )
    for epoch in (0, 3):
        batches.set_epoch(epoch)
        copy = pickle.loads(pickle.dumps(batches))  # noqa: S301
        for step, ready in enumerate(loader, start=1):
            for other in (batches[step].batch, copy[step].batch):
                assert pairs(ready.batch) == pairs(other)
                assert contexts(ready.batch) == contexts(other)
                assert ready.batch.groups == other.groups
    assert batches.plan.is_catalogue
