"""What a training or evaluation step reads: the plan of its items, and batches of prefix rows.

Shapes: N items of the catalogue, U items of the union, R items with a role, H neighbours, k centres,
B users of a batch, L history positions. Memory is bounded by the union and its graph entries, never by
N, unless the catalogue (or an exact centre, which reads all of it) is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from configs.contracts import Batch, GraphRows, ItemNeeds, ItemPlan, SparseRows
from configs.errors import InputError
from data.order import rank_share, shuffled, steps_per_epoch
from data.sequences import SequenceArrays, Targets, gather_histories, target_items


@dataclass(frozen=True)
class _Links:
    """CSR whose columns are still ids: indptr int64 [rows+1], ids int64 [nnz], values float32 [nnz]."""

    indptr: np.ndarray
    ids: np.ndarray
    values: np.ndarray


class ItemPlanner:
    """Turns "these items have a role in the step" into the union to look up and the rows of every view.

    The entries of a row keep the graph's order in every plan, so a sum over them rounds the same for a
    few roles as for the catalogue.

    Args:
        needs: the model's declaration.
        num_items: N.
        graph: where co-occurrence, neighbours and clusters come from; None if the model needs none.
        features: raw features by name, [N, d_m], in memory or memory-mapped.
    Raises:
        InputError: the model needs a graph, a modality or a feature that is not there, or the graph is
            of another catalogue.
    """

    def __init__(
        self, needs: ItemNeeds, num_items: int, graph: GraphRows | None, features: Mapping[str, np.ndarray]
    ) -> None:
        assert needs.id_rows or not (needs.cooccurrence or needs.views), "graph rows multiply ID rows"
        wanted = ["co-occurrence"] * needs.cooccurrence + [f"{m} neighbours" for m in needs.views]
        wanted += [f"{m} centres" for m in needs.centers]
        if wanted and graph is None:
            raise InputError(
                f"the model needs an item graph ({', '.join(wanted)}) and none is given: "
                "build one with jobs/build_graph.py and pass --set graph=GRAPH"
            )
        if wanted and graph is not None and graph.num_items != num_items:
            raise InputError(
                f"the graph has {graph.num_items:,} items and the dataset {num_items:,}: they do not belong "
                "together; build the graph of this dataset with jobs/build_graph.py"
            )
        for name in needs.features:
            if name not in features:
                raise InputError(f"the model needs item feature {name!r}; the dataset has {sorted(features)}")
            if len(features[name]) != num_items:
                raise InputError(f"feature {name!r} has {len(features[name]):,} rows for {num_items:,} items")
        self.needs = needs
        self.num_items = num_items
        self._graph = graph
        self._features = features
        self._catalogue: ItemPlan | None = None

    def catalogue(self) -> ItemPlan:
        """The plan in which every item has a role; made on the first call, O(N) plus the graph's entries."""
        if self._catalogue is None:
            self._catalogue = self.plan(np.arange(self.num_items))
        return self._catalogue

    def plan(self, role_ids: np.ndarray) -> ItemPlan:
        """The plan of a step in which `role_ids` have a role.

        Centres are exact means over every clustered item, so where the model needs centres the clustered
        items join the roles: the union is then the whole catalogue but for items without any modality.

        Args:
            role_ids: int64 [R], ascending, unique, in [0, N).
        Raises:
            InputError: the graph names an item or centre that does not exist.
        """
        roles = np.asarray(role_ids, dtype=np.int64)
        assert (np.diff(roles) > 0).all(), "roles must be ascending and unique"
        assert len(roles) == 0 or (roles[0] >= 0 and roles[-1] < self.num_items), "role outside the catalogue"
        centers = {m: self._center_links(m) for m in self.needs.centers}
        if centers:
            has_role = np.zeros(self.num_items, dtype=bool)
            for ids in (roles, *(links.ids for links in centers.values())):
                has_role[ids] = True
            roles = np.flatnonzero(has_role)
        cooccurrence = self._cooccurrence_links(roles) if self.needs.cooccurrence else None
        views = {m: self._view_links(m, roles) for m in self.needs.views}
        linked = [*centers.values(), *views.values(), *([cooccurrence] if cooccurrence else [])]
        is_catalogue = len(roles) == self.num_items
        union_ids, positions = _order_union(roles, [links.ids for links in linked], is_catalogue)
        num_centered = len(centers)
        columns = [len(roles)] * num_centered + [len(union_ids)] * (len(linked) - num_centered)
        rows = [
            SparseRows(_tensor(links.indptr), _tensor(indices), _tensor(links.values), num_columns)
            for links, indices, num_columns in zip(linked, positions, columns, strict=True)
        ]
        return ItemPlan(
            union_ids=_tensor(union_ids),
            num_roles=len(roles),
            cooccurrence=rows[-1] if cooccurrence else None,
            views=dict(zip(views, rows[num_centered : num_centered + len(views)], strict=True)),
            centers=dict(zip(centers, rows[:num_centered], strict=True)),
            features={m: _tensor(self._features[m][roles].astype(np.float32)) for m in self.needs.features},
            is_catalogue=is_catalogue,
        )

    def _cooccurrence_links(self, roles: np.ndarray) -> _Links:
        assert self._graph is not None
        indptr, items, weights = self._graph.cooccurrence_rows(roles)
        links = _Links(indptr.astype(np.int64), items.astype(np.int64), weights.astype(np.float32))
        self._check(links, roles, "co-occurrence")
        return links

    def _view_links(self, modality: str, roles: np.ndarray) -> _Links:
        assert self._graph is not None
        neighbors = np.asarray(self._graph.neighbors(modality)[roles], dtype=np.int64)  # [R, H], -1 pads
        real = neighbors != -1
        counts = real.sum(axis=1)
        scale = 1.0 / np.maximum(counts, 1) if self.needs.view_scale == "mean" else np.ones(len(counts))
        links = _Links(_indptr(counts), neighbors[real], np.repeat(scale, counts).astype(np.float32))
        self._check(links, roles, f"{modality} neighbour")
        return links

    def _center_links(self, modality: str) -> _Links:
        """Cluster means over item ids [k, N]: 1 / size for each member, ascending; an empty cluster is an empty row."""
        assert self._graph is not None
        clusters = np.asarray(self._graph.clusters(modality), dtype=np.int64)
        num_centers = self._graph.num_centers(modality)
        if clusters.max(initial=-1) >= num_centers or clusters.min(initial=-1) < -1:
            item = int(np.flatnonzero((clusters >= num_centers) | (clusters < -1))[0])
            raise InputError(
                f"graph: {modality} cluster of item {item} is {clusters[item]}, outside -1..{num_centers - 1}: "
                "the graph is corrupt; rebuild it with jobs/build_graph.py"
            )
        members = np.flatnonzero(clusters >= 0)
        sizes = np.bincount(clusters[members], minlength=num_centers)
        by_cluster = members[np.argsort(clusters[members], kind="stable")]
        return _Links(_indptr(sizes), by_cluster, np.repeat(1.0 / np.maximum(sizes, 1), sizes).astype(np.float32))

    def _check(self, links: _Links, roles: np.ndarray, what: str) -> None:
        """An id outside the catalogue would not raise in a sharded table: it would return another row."""
        if links.ids.size and (links.ids.min() < 0 or links.ids.max() >= self.num_items):
            entry = int(np.flatnonzero((links.ids < 0) | (links.ids >= self.num_items))[0])
            item = roles[np.searchsorted(links.indptr, entry, side="right") - 1]
            raise InputError(
                f"graph: a {what} of item {item} is {links.ids[entry]}, outside 0..{self.num_items - 1}: "
                "the graph is corrupt; rebuild it with jobs/build_graph.py"
            )


def _order_union(
    roles: np.ndarray, linked: list[np.ndarray], is_catalogue: bool
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The union in its order, int64 [U], and the positions in it of each array of `linked` ids.

    One sort of everything: on 5 million ids it took 0.8 s, against 2.5 s for a plain np.unique (a hash
    set in NumPy 2.4) and 2 to 4 s for searching the ids in the union afterwards.
    """
    if is_catalogue:
        return roles, linked
    ids, inverse = np.unique(np.concatenate([roles, *linked]), return_inverse=True)
    is_role = np.zeros(len(ids), dtype=bool)
    is_role[inverse[: len(roles)]] = True
    order = np.concatenate([np.flatnonzero(is_role), np.flatnonzero(~is_role)])
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    ends = np.cumsum([len(roles), *map(len, linked)])
    return ids[order], np.split(place[inverse], ends[:-1])[1:]


def positions_of(plan: ItemPlan, item_ids: np.ndarray) -> np.ndarray:
    """Positions in the plan's order, int64, of items that have a role in it (any shape)."""
    roles = plan.union_ids[: plan.num_roles].numpy()
    if plan.is_catalogue:
        positions = item_ids
        known = item_ids.size == 0 or (item_ids.min() >= 0 and item_ids.max() < len(roles))
    else:
        positions = np.searchsorted(roles, item_ids)
        known = item_ids.size == 0 or bool(positions.max() < len(roles) and (roles[positions] == item_ids).all())
    assert known, "an item without a role in the plan"
    return positions


def assemble(
    data: SequenceArrays,
    users: np.ndarray,
    positions: np.ndarray,
    max_length: int,
    num_global_targets: int,
    to_position: Callable[[np.ndarray], np.ndarray],
) -> Batch:
    """The prefix rows of targets (users, positions), int64 [B] each; B may be 0.

    Args:
        to_position: item ids, int64 [n], to positions of the plan; it sees real items only, never pads.
    Returns:
        A Batch; a target is -1 where there is none to predict (split "next").
    """
    history, lengths = gather_histories(data, users, positions, max_length)
    real = np.arange(history.shape[1]) < lengths[:, None]
    history[real] = to_position(history[real])
    targets = target_items(data, users, positions)
    known = targets >= 0
    targets[known] = to_position(targets[known])
    return Batch(
        users=_tensor(users),
        history=_tensor(history),
        lengths=_tensor(lengths),
        targets=_tensor(targets),
        positions=_tensor(positions),
        num_global_targets=num_global_targets,
    )


class TrainBatches(Dataset[Batch]):
    """Step s of an epoch on this rank: its share of global batch s in the epoch's order, over the whole catalogue.

    Indices are item ids, positions in `plan`. A last, smaller batch is trained too: nothing is dropped.
    For DataLoader(batches, batch_size=None, sampler=range(first_step, len(batches)), num_workers=any).

    Args:
        targets: the training targets.
        batch_size: targets of a step over all ranks.
        max_length: history items used at most.
        seed: of the order, with the epoch.
        rank, world: this rank and how many there are.
        planner: makes the catalogue's plan, once, in the process that asks for it.
    Raises:
        InputError: there is no training target.
    """

    def __init__(
        self,
        data: SequenceArrays,
        targets: Targets,
        batch_size: int,
        max_length: int,
        seed: int,
        rank: int,
        world: int,
        planner: ItemPlanner,
    ) -> None:
        if len(targets) == 0:
            raise InputError("no user has two training items, so there is nothing to predict: nothing to train on")
        self._data, self._targets = data, targets
        self._batch_size, self._max_length = batch_size, max_length
        self._seed, self._rank, self._world = seed, rank, world
        self._planner = planner
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # persistent workers see set_epoch

    @property
    def plan(self) -> ItemPlan:
        """What the indices of every batch refer to; not shipped with the batches."""
        return self._planner.catalogue()

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order; call it before iterating a loader over the epoch."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return steps_per_epoch(len(self._targets), self._batch_size)

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < len(self):
            raise IndexError(step)
        size = len(self._targets)
        first, end = rank_share(step, size, self._batch_size, 0, 1)
        share = np.arange(*rank_share(step, size, self._batch_size, self._rank, self._world))
        users, positions = self._targets.locate(shuffled(share, size, self._seed, int(self._epoch)))
        return assemble(self._data, users, positions, self._max_length, end - first, _item_ids)


class EvaluationBatches(Dataset[Batch]):
    """Targets [b * batch_size, (b + 1) * batch_size) of a split in their own order, the same on every rank and world.

    Indices are item ids. Ranks share the batches by choosing which b they ask for.
    """

    def __init__(self, data: SequenceArrays, targets: Targets, batch_size: int, max_length: int) -> None:
        self._data, self._targets = data, targets
        self._batch_size, self._max_length = batch_size, max_length

    def __len__(self) -> int:
        return steps_per_epoch(len(self._targets), self._batch_size)

    def __getitem__(self, number: int) -> Batch:
        if not 0 <= number < len(self):
            raise IndexError(number)
        index = np.arange(*rank_share(number, len(self._targets), self._batch_size, 0, 1))
        users, positions = self._targets.locate(index)
        return assemble(self._data, users, positions, self._max_length, len(index), _item_ids)


def _item_ids(ids: np.ndarray) -> np.ndarray:
    """Positions of items in the catalogue's plan."""
    return ids


def _indptr(counts: np.ndarray) -> np.ndarray:
    """Row starts int64 [rows+1] of rows with these many entries."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor over the array's memory; read-only arrays (memory maps) are copied, as torch cannot protect them."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
