"""Plans the items of a step: which rows are looked up, and how every view is computed from them.

Shapes: N items of the catalogue, U items of the union, R items with a role, H neighbours, k centres, S draws per
centre. Memory is proportional to the union and its graph entries, and not to N. The exceptions are the plan of the
whole catalogue, exact centres, which read the whole catalogue, and sampled centres, which keep 8 bytes per clustered
item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from contracts.errors import InputError
from contracts.graph_rows import GraphRows
from contracts.item_plan import ItemNeeds, ItemPlan, SparseRows
from contracts.rows import Rows
from data.sampling.item_links import Links, LinksKind, LinksName, order_union, row_starts, strongest_links


class ItemPlanner:
    """Makes item plans: from the items with a role in a step, the union to look up and the rows of every view.

    The entries of a row are in the graph's order in every plan. So a sum over them rounds in the same way for a few
    roles as for the whole catalogue.

    Args:
        needs: what the model needs of the items.
        num_items: N.
        graph: the source of co-occurrence, neighbours and clusters; None if the model needs none of them.
        features: raw features by name, [N, d_m], in memory or memory-mapped.
        popularity: float32 [N], see `ItemPlan.popularity`; None if the model does not need it.

    Raises:
        InputError: see `check_needs`.
    """

    def __init__(
        self,
        *,
        needs: ItemNeeds,
        num_items: int,
        graph: GraphRows | None,
        features: Mapping[str, Rows],
        popularity: np.ndarray | None = None,
    ) -> None:
        assert popularity is not None or not needs.popularity, "the model needs the items' popularity"
        check_needs(needs, num_items, graph, features)
        self.needs = needs
        self.num_items = num_items
        self._graph = graph
        self._features = features
        self._popularity = popularity
        self._catalogue: ItemPlan | None = None
        self._member_lists: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def catalogue(self) -> ItemPlan:
        """Return the plan in which every item has a role; the first call makes it in O(N) plus the graph's entries."""
        if self._catalogue is None:
            self._catalogue = self.plan(np.arange(self.num_items))
        return self._catalogue

    def plan(
        self, role_ids: np.ndarray, rng: np.random.Generator | None = None, seen: np.ndarray | None = None
    ) -> ItemPlan:
        """Return the plan of a step in which `role_ids` have a role.

        Exact centres are means over all clustered items. If the model needs them, all clustered items get a role, and
        the union is the whole catalogue except for items without any modality. Sampled centres add k * S rows at most,
        for any N.

        Args:
            role_ids: int64 [R], ascending, unique, in [0, N).
            rng: draws the samples of the centres, if the model samples them.
            seen: int64 [n], in any order, the items with a role that are in a history. Only these get a co-occurrence
                row, and the rows of others are empty. None: all do.

        Raises:
            InputError: the graph names an item or a centre that does not exist.
        """
        roles = np.asarray(role_ids, dtype=np.int64)
        assert (np.diff(roles) > 0).all(), "roles must be ascending and unique"
        assert len(roles) == 0 or (roles[0] >= 0 and roles[-1] < self.num_items), "role outside the catalogue"
        samples = self.needs.center_samples
        linked: dict[LinksName, Links] = {}
        if samples is None:
            linked |= {("centers", m): self._center_links(m) for m in self.needs.centers}
        elif self.needs.centers:
            assert rng is not None, "sampled centres need a generator"
            linked |= {("sampled centers", m): self._sampled_center_links(m, samples, rng) for m in self.needs.centers}
        roles = self._with_members(roles, [links.ids for (kind, _), links in linked.items() if kind == "centers"])
        if self.needs.cooccurrence:
            linked["cooccurrence", ""] = self._cooccurrence_links(roles, seen)
        linked |= {("views", m): self._view_links(m, roles) for m in self.needs.views}
        is_catalogue = len(roles) == self.num_items
        union_ids, positions = order_union(roles, {name: links.ids for name, links in linked.items()}, is_catalogue)
        rows = {
            name: SparseRows(
                indptr=as_tensor(links.indptr),
                indices=as_tensor(positions[name]),
                values=as_tensor(links.values),
                # Exact centres are means of items with a role, which are first in the union.
                num_columns=len(roles) if name[0] == "centers" else len(union_ids),
            )
            for name, links in linked.items()
        }

        def by_modality(wanted: LinksKind) -> dict[str, SparseRows]:
            return {modality: found for (kind, modality), found in rows.items() if kind == wanted}

        return ItemPlan(
            union_ids=as_tensor(union_ids),
            num_roles=len(roles),
            cooccurrence=rows.get(("cooccurrence", "")),
            views=by_modality("views"),
            centers=by_modality("centers"),
            sampled_centers=by_modality("sampled centers"),
            features={m: as_tensor(self._features[m][roles].astype(np.float32)) for m in self.needs.features},
            popularity=self._popularity_of(roles),
            is_catalogue=is_catalogue,
        )

    def _with_members(self, roles: np.ndarray, members: Sequence[np.ndarray]) -> np.ndarray:
        """Return the roles together with these members of centres, int64 ascending; without centres the same array."""
        if not members:
            return roles
        has_role = np.zeros(self.num_items, dtype=bool)
        for ids in (roles, *members):
            has_role[ids] = True
        return np.flatnonzero(has_role)

    def _popularity_of(self, roles: np.ndarray) -> torch.Tensor | None:
        if self._popularity is None or not self.needs.popularity:
            return None
        return as_tensor(self._popularity[roles].astype(np.float32)[:, None])

    def _cooccurrence_links(self, roles: np.ndarray, seen: np.ndarray | None) -> Links:
        assert self._graph is not None
        wanted = np.ones(len(roles), dtype=bool)
        if seen is not None:
            wanted[:] = False
            wanted[np.searchsorted(roles, seen)] = True
        indptr, items, weights = self._graph.cooccurrence_rows(roles[wanted])
        lengths = np.zeros(len(roles), dtype=np.int64)
        lengths[wanted] = np.diff(indptr)
        indptr = row_starts(lengths)
        links = Links(indptr.astype(np.int64), items.astype(np.int64), weights.astype(np.float32))
        if self.needs.cooccurrence_cap is not None:
            links = strongest_links(links, self.needs.cooccurrence_cap)
        self._check(links, roles, "co-occurrence")
        return links

    def _view_links(self, modality: str, roles: np.ndarray) -> Links:
        assert self._graph is not None
        neighbors = np.asarray(self._graph.neighbors(modality)[roles], dtype=np.int64)  # [R, H], -1 pads
        real = neighbors != -1
        counts = real.sum(axis=1)
        scale = 1.0 / np.maximum(counts, 1) if self.needs.view_scale == "mean" else np.ones(len(counts))
        links = Links(row_starts(counts), neighbors[real], np.repeat(scale, counts).astype(np.float32))
        self._check(links, roles, f"{modality} neighbour")
        return links

    def _center_links(self, modality: str) -> Links:
        """Return cluster means over item ids, [k, N]: entries 1 / size for the members; an empty cluster has none."""
        members, sizes = self._members(modality)
        return Links(row_starts(sizes), members, np.repeat(1.0 / np.maximum(sizes, 1), sizes).astype(np.float32))

    def _sampled_center_links(self, modality: str, samples: int, rng: np.random.Generator) -> Links:
        """Return an unbiased estimate of C_m A_m over item ids, [k, N], with S entries per centre.

        Each draw takes a member of the cluster, and then one of its neighbours, both uniformly. The expectation of the
        drawn neighbour's row is the mean of the members' views. If views are sums, the row is multiplied by the number
        of neighbours.
        """
        assert self._graph is not None
        members, sizes = self._members(modality)
        drawn = np.where(sizes > 0, samples, 0)
        center = np.repeat(np.arange(len(sizes)), drawn)
        starts = np.cumsum(sizes) - sizes
        chosen = members[starts[center] + rng.integers(0, sizes[center])]
        neighbors = np.asarray(self._graph.neighbors(modality)[chosen], dtype=np.int64)  # [k S, H], -1 pads
        real = neighbors != -1
        counts = real.sum(axis=1)
        wanted = rng.integers(0, np.maximum(counts, 1))
        column = ((np.cumsum(real, axis=1) == wanted[:, None] + 1) & real).argmax(axis=1)
        # A member without neighbours has a view of zeros, so its entry has weight 0.
        ids = np.where(counts > 0, neighbors[np.arange(len(chosen)), column], chosen)
        scale = np.minimum(counts, 1) if self.needs.view_scale == "mean" else counts
        links = Links(row_starts(drawn), ids, (scale / samples).astype(np.float32))
        self._check(links, np.arange(len(sizes)), f"{modality} neighbour of a member of centre")
        return links

    def _members(self, modality: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the clustered items by cluster, ascending in each, int64 [n], and the sizes of clusters, int64 [k]."""
        if modality not in self._member_lists:
            self._member_lists[modality] = self._find_members(modality)
        return self._member_lists[modality]

    def _find_members(self, modality: str) -> tuple[np.ndarray, np.ndarray]:
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
        return members[np.argsort(clusters[members], kind="stable")], sizes

    def _check(self, links: Links, roles: np.ndarray, what: str) -> None:
        """Refuse ids outside the catalogue. A sharded table would not raise for one, and would return another row."""
        if links.ids.size and (links.ids.min() < 0 or links.ids.max() >= self.num_items):
            entry = int(np.flatnonzero((links.ids < 0) | (links.ids >= self.num_items))[0])
            item = roles[np.searchsorted(links.indptr, entry, side="right") - 1]
            raise InputError(
                f"graph: a {what} of item {item} is {links.ids[entry]}, outside 0..{self.num_items - 1}: "
                "the graph is corrupt; rebuild it with jobs/build_graph.py"
            )


def check_needs(needs: ItemNeeds, num_items: int, graph: GraphRows | None, features: Mapping[str, Rows]) -> None:
    """Check that everything a model needs of its items is available.

    Raises:
        InputError: the graph or a feature is missing, or has another number of items.
    """
    assert needs.id_rows or not (needs.cooccurrence or needs.views), "graph rows multiply ID rows"
    wanted = ["co-occurrence"] * needs.cooccurrence + [f"{m} neighbours" for m in needs.views]
    wanted += [f"{m} centres" for m in needs.centers]
    if wanted and graph is None:
        raise InputError(
            f"the model needs an item graph ({', '.join(wanted)}), but graph is not set: "
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


def positions_of(plan: ItemPlan, item_ids: np.ndarray) -> np.ndarray:
    """Return the positions in the plan's order, int64, of items with a role in it; of any shape."""
    roles = plan.union_ids[: plan.num_roles].numpy()
    if plan.is_catalogue:
        positions = item_ids
        known = item_ids.size == 0 or (item_ids.min() >= 0 and item_ids.max() < len(roles))
    else:
        positions = np.searchsorted(roles, item_ids)
        known = item_ids.size == 0 or bool(positions.max() < len(roles) and (roles[positions] == item_ids).all())
    assert known, "an item without a role in the plan"
    return positions


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """Return a tensor that shares the array's memory. Read-only arrays are copied, as torch could write to them."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
