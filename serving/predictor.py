"""Recommends, scores and encodes for any histories with a trained run, in one process without Ray.

The work is that of `jobs/recommend.py`: the same batches of users give the same lists to the last digit.

n: histories, N: items of the catalogue, K: items of a list, D: summed width of all channels' vectors.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from configs.schema import Config
from contracts.errors import InputError
from data.ragged import take_lists
from distributed.inference.scoring import Scorer
from distributed.random_streams import seed_for
from model.protocol import Channel
from serving.explaining import MOST_EXPLAINED, explain_lists
from serving.history_ranking import HistoryRanking
from serving.index.blocks import blocks_of, has_these_vectors
from serving.index.kinds import check_effort
from serving.index.search import VectorIndex
from serving.item_lists import Choices, Histories, ItemLists, OnUnknown, read_choices, read_lists
from serving.item_names import ItemNames
from serving.results import Recommendations, SimilarItems
from serving.similar import similar_items


class Predictor:
    """A trained run with its dataset, ready for requests. `mdsrec.load` returns one.

    A history is a list of item ids, oldest first: all source ids (strings), or all dense ids (whole numbers). Of a long
    history the model reads the latest `max_length` items.

    Several threads may use one predictor; their calls run one after another, and each uses all of torch's threads.
    Item vectors are computed at the first call that needs them, and kept if they take at most
    `evaluation.held_items_gib`. Larger ones are computed anew by every call, which then takes as long as a pass over
    the catalogue: for such a catalogue, use an index or `jobs/recommend.py`.

    Attributes:
        run: the run's folder or URI.
        step: the checkpoint's step; None for a system that is not trained.
        config: the run's settings.
        device: where it computes.
        identity: what tells the weights and the data from others, for an index of the items.
        ranking: does the work; to be used within `serving`.
    """

    def __init__(self, *, scorer: Scorer, step: int | None, device: torch.device, identity: Mapping[str, str]) -> None:
        self.config: Config = scorer.config
        self.run: str = scorer.config.run or ""
        self.step = step
        self.device = device
        self.identity = dict(identity)
        self.ranking, self._dataset = HistoryRanking(scorer), scorer.inputs.dataset
        self._names = ItemNames(self._dataset.item_source_ids())
        self._lock = threading.RLock()
        scorer.system.eval()

    def __repr__(self) -> str:
        return f"<Predictor of {self.config.model.name}, {self.num_items:,} items, step {self.step} of run {self.run}>"

    @property
    def num_items(self) -> int:
        """N."""
        return self._dataset.num_items

    @property
    def max_length(self) -> int:
        """The number of latest items of a history that the model reads."""
        return self.config.model.max_length

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The parts of a score and their weights."""
        return self.ranking.scorer.system.recommender.channels

    @property
    def item_ids(self) -> np.ndarray:
        """The source ids of all items by dense id: Python strings [N]."""
        return self._names.source(np.arange(self.num_items))

    def histories_of(self, users: list[str]) -> list[np.ndarray]:
        """Return the whole sequences of users of the dataset, as dense ids, oldest first.

        Args:
            users: the users' source ids.

        Raises:
            InputError: the dataset has no such user.
        """
        named = list(users) if isinstance(users, Iterable) and not isinstance(users, str | bytes) else [None]
        if not all(isinstance(user, str) for user in named):
            raise InputError("users: is not a list of users' source ids; give strings, as in ['A1', 'A2']")
        if not named:
            return []
        found = ItemNames(self._dataset.user_source_ids()).dense(pa.array(named, pa.large_string()))
        if (found < 0).any():
            name = named[int(np.flatnonzero(found < 0)[0])]
            raise InputError(f"users: {name!r} is not a user of dataset {self._dataset.path}; correct the id")
        _, items = take_lists(self._dataset.offsets, self._dataset.items, found)
        return np.split(items, np.cumsum(np.diff(self._dataset.offsets)[found])[:-1])

    def recommend(
        self,
        histories: ItemLists | Histories,
        k: int = 10,
        *,
        exclude: Any = None,
        allow: Any = None,
        hide_history: bool = True,
        on_unknown: OnUnknown = "skip",
        explain: bool = False,
    ) -> Recommendations:
        """Return the K = min(k, N) best next items of each history, from the whole catalogue.

        A history without a known item gets the items that occur most often in training; `is_popular` and `note` say so.

        Args:
            histories: a list of items for each user; a user need not be one of the dataset.
            k: length of the lists.
            exclude: items that no list may hold: one list for all users, or a list for each.
            allow: items that lists are made of, in the same forms; None: the whole catalogue.
            hide_history: whether items of a user's history are left out of the list.
            on_unknown: "skip" leaves out ids that no item has, and counts them; "error" refuses them.
            explain: whether to say where each item came from. It takes as many encodings of a history as it has items.

        Raises:
            InputError: the arguments are not as described. The message says which and what to do.
        """
        _check_length(k)
        _check_switch("hide_history", hide_history)
        _check_switch("explain", explain)
        data = self._read(histories, "histories", on_unknown)
        if explain and data.num_users > MOST_EXPLAINED:
            raise InputError(
                f"explain=True: explains at most {MOST_EXPLAINED:,} histories at a time, and {data.num_users:,} were "
                "given; call it for parts of them"
            )
        k = min(int(k), self.num_items)
        hidden = None if exclude is None else self._choices(exclude, "exclude", on_unknown, data)
        allowed = None if allow is None else self._choices(allow, "allow", on_unknown, data)
        chosen = [one for one in (hidden, allowed) if one is not None]
        with self.serving():
            items, scores, is_exact = self.ranking.lists(data, k, hide_history, hidden, allowed)
            explanation = explain_lists(self.ranking, data, items, self._names) if explain else None
        return Recommendations(
            items=items,
            item_ids=self._names.source(items),
            scores=scores,
            unknown=data.unknown,
            is_popular=data.lengths == 0,
            is_exact=is_exact,
            unknown_choices=sum(one.num_unknown for one in chosen),
            looks_like_source_ids=(data.were_numbers or any(one.were_numbers for one in chosen))
            and self._names.look_like_numbers,
            explanation=explanation,
        )

    def use_index(self, path: str | None, *, effort: int | None = None, verify: bool = True) -> None:
        """Let `recommend` find candidates with an index of `jobs/build_index.py`, and score these by the exact rule.

        With a flat index, lists are still those of the ranking of the whole catalogue. With any other kind they need
        not be; `is_exact` of the lists says for which users they are known to be. Lists with `allow` use no index.

        Args:
            path: the index's folder; None: rank the whole catalogue again.
            effort: how thoroughly an approximate index searches: faiss's efSearch or nprobe; None: its default.
            verify: whether every file is compared with its SHA-256, and a flat index's vectors with those that this
                process computes, which takes a pass over the catalogue. Otherwise no list is called exact.

        Raises:
            InputError: this is no finished index, it is damaged, it is one of another run or checkpoint, an argument is
                wrong, or faiss is missing. The predictor then works as before.
        """
        check_effort(effort)
        if path is None:
            with self.serving():
                self.ranking.use_index(None, None, False)
            return
        if not isinstance(path, str | Path):
            raise InputError(f"path={path!r}: is not the path of an index; give a folder of jobs/build_index.py")
        folder = Path(path).expanduser().absolute()
        with self.serving():
            opened = VectorIndex.open(folder, belongs_to=self.identity, verify=verify)
            is_checked = verify and opened.is_exact
            if is_checked and not has_these_vectors(opened.manifest, blocks_of(self.ranking.blocks)):
                raise InputError(
                    f"index {folder}: its vectors differ in their last digits from those that this process computes, "
                    "as on another processor or with another evaluation.item_block; build the index here, or set "
                    "verify=False, which calls no list exact"
                )
            self.ranking.use_index(opened, effort, is_checked)

    def score(
        self, histories: ItemLists | Histories, items: Any, *, on_unknown: OnUnknown = "skip"
    ) -> np.ndarray | list[np.ndarray]:
        """Return the scores of chosen items, which are those of `recommend` to the last digit for the same histories.

        Args:
            histories: as in `recommend`.
            items: m items for all users, or a list for each user.
            on_unknown: as in `recommend`.

        Returns:
            float32 [n, m], or a float32 array for each user; NaN for an unknown item or a history without known items.
        """
        data = self._read(histories, "histories", on_unknown)
        asked = self._choices(items, "items", on_unknown, data)
        with self.serving():
            found = self.ranking.scores(data, asked)
        if asked.is_common:
            return found.reshape(data.num_users, len(asked.items))
        return np.split(found, np.cumsum(asked.lengths(np.arange(data.num_users)))[:-1])

    def user_vectors(self, histories: ItemLists | Histories, *, on_unknown: OnUnknown = "skip") -> np.ndarray:
        """Return the vectors of users, float32 [n, D]; rows of NaN for histories without a known item.

        For a system whose score is not fused, and without gains, the score of a pair is the inner product of this and
        the item's vector.
        """
        data = self._read(histories, "histories", on_unknown)
        with self.serving():
            return self.ranking.user_vectors(data)

    def item_vectors(self) -> np.ndarray:
        """Return the vectors of all items by dense id, float32 [N, D]. It takes 4 N D bytes."""
        with self.serving():
            blocks = [block.vectors.cpu().numpy() for block in self.ranking.blocks.pass_over()]
        return np.concatenate(blocks)

    def similar_items(self, item: str | int, k: int = 10, *, by: str = "vectors") -> SimilarItems:
        """Return the K items most similar to an item, without the item itself.

        Args:
            item: source id (str) or dense id (int).
            k: how many.
            by: "vectors": the cosine of the model's item vectors; a modality of the dataset, such as "text": the cosine
                of its features; "bought together": the weight of co-occurrence in the run's graph.

        Raises:
            InputError: there is no such item, it lacks the modality, or `by` is none of these.
        """
        _check_length(k)
        known = read_lists([[item]], "item", self._names, self.num_items, "skip").items
        if not len(known):
            raise InputError(f"item={item!r}: none of the {self.num_items:,} items has this id; correct it")
        with self.serving():
            found, scores = similar_items(self.ranking, int(known[0]), k, by)
        return SimilarItems(items=found, item_ids=self._names.source(found), scores=scores)

    def _read(self, lists: ItemLists | Histories, what: str, on_unknown: OnUnknown) -> Histories:
        if isinstance(lists, Histories):
            return lists
        return read_lists(lists, what, self._names, self.num_items, on_unknown)

    def _choices(self, items: Any, what: str, on_unknown: OnUnknown, data: Histories) -> Choices:
        return read_choices(items, what, self._names, self.num_items, on_unknown, data.num_users)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Hold the lock and compute no gradients; torch's random numbers are the caller's again afterwards."""
        devices = [self.device] if self.device.type == "cuda" else []
        with self._lock, torch.no_grad(), torch.random.fork_rng(devices=devices):
            seed_for("ranking next", self.config.seed, 0, 0)
            yield


def _check_length(k: Any) -> None:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"k={k!r}: is not a whole number from 1 on")


def _check_switch(name: str, value: Any) -> None:
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name}={value!r}: is neither True nor False")
