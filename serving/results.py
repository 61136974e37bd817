"""What a predictor returns: lists of items with scores, and what each came from.

n: users, K: items of a list, C: channels, L: items of an input.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from contracts.errors import InputError

NUMBERS_NOTE = (
    "Items were given as whole numbers, which are dense ids; the source ids of this catalogue are numbers too, and "
    "must be given as text."
)
_SHOWN = 5  # lists that are shown
_TITLE = 60  # most characters of a title
SCHEMA = pa.schema([("user", pa.string()), ("rank", pa.int32()), ("item", pa.string()), ("score", pa.float32())])


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What each score of a list consists of, and which items of the history it came from.

    Attributes:
        channels: the C channels' names; the last one is co-occurrence if that is added to scores.
        parts: float64 [n, K, C], each channel's part of the score, gains for repeats included. The parts add up to the
            score, unless `is_fused`; a fused score is computed from the channels' scores, which are then the parts.
        is_fused: whether the score is not the sum of its parts.
        inputs: int64 [n, L], dense ids of the items that the model read, oldest first; -1 after the last.
        input_ids: their source ids, [n, L]; None after the last.
        changes: float32 [n, K, L]: by how much the score falls if this item alone is taken out of the history. NaN
            where there is no item, and for a history of one item, without which there is no score.
        titles: texts of items by dense id; empty if the dataset has no texts.
    """

    channels: tuple[str, ...]
    parts: np.ndarray
    is_fused: bool
    inputs: np.ndarray
    input_ids: np.ndarray
    changes: np.ndarray
    titles: dict[int, str]


@dataclass(frozen=True, kw_only=True, repr=False)
class Recommendations:
    """The best items of n users, best first. Users are in the order in which their histories were given.

    Attributes:
        items: int64 [n, K], dense ids; -1 where there are fewer than K items.
        item_ids: their source ids, Python strings [n, K]; None where there is none.
        scores: float32 [n, K]; -inf where there is none. For a user with `is_popular`, how often the item occurs in
            training.
        unknown: int64 [n], how many ids of each history were left out because no item has them.
        is_popular: bool [n], whether no item of the history is known. Such a user gets the items that occur most often.
        is_exact: bool [n], whether the list is known to be that of the ranking of the whole catalogue. It always is
            without an index (`Predictor.use_index`).
        unknown_choices: how many ids of `exclude` and `allow` were left out because no item has them.
        looks_like_source_ids: whether items were given as whole numbers, which are dense ids, although the source ids
            look like whole numbers too.
        explanation: see `Explanation`; None unless it was asked for.
    """

    items: np.ndarray
    item_ids: np.ndarray
    scores: np.ndarray
    unknown: np.ndarray
    is_popular: np.ndarray
    is_exact: np.ndarray
    unknown_choices: int = 0
    looks_like_source_ids: bool = False
    explanation: Explanation | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        """Show the first lists, a line for each user, and the note."""
        lines = [
            f"{user}: "
            + ", ".join(f"{name} ({x:.4g})" for name, x in zip(names, scores, strict=True) if name is not None)
            for user, (names, scores) in enumerate(zip(self.item_ids[:_SHOWN], self.scores[:_SHOWN], strict=True))
        ]
        more = [f"... and {len(self) - _SHOWN:,} more users"] if len(self) > _SHOWN else []
        return "\n".join([*lines, *more, *([self.note] if self.note else [])])

    @property
    def note(self) -> str:
        """What is unusual about the histories, in a sentence or two; empty if nothing is."""
        said, unknown, popular = [], int(self.unknown.sum()), int(self.is_popular.sum())
        if unknown:
            said.append(
                f"{unknown:,} {'id' if unknown == 1 else 'ids'} in {int((self.unknown > 0).sum()):,} of {len(self):,} "
                f"histories {'is' if unknown == 1 else 'are'} not in the catalogue and left out."
            )
        if self.unknown_choices:
            ids = "id of exclude or allow is" if self.unknown_choices == 1 else "ids of exclude and allow are"
            said.append(f"{self.unknown_choices:,} {ids} not in the catalogue and left out.")
        if popular:
            said.append(
                f"{popular:,} of {len(self):,} histories {'has' if popular == 1 else 'have'} no known item; "
                f"{'this user gets' if popular == 1 else 'these users get'} the items that occur most often."
            )
        if self.looks_like_source_ids:
            said.append(NUMBERS_NOTE)
        return " ".join(said)

    def to_table(self, users: Sequence[str] | pa.Array | None = None) -> pa.Table:
        """Return the lists as a table: a row for each item, with columns user, rank (from 1), item (source id), score.

        Args:
            users: the users' names, n; None: "0", "1" and so on.

        Raises:
            InputError: there are more or fewer names than lists.
        """
        named = [str(n) for n in range(len(self))] if users is None else users
        names = named if isinstance(named, pa.Array) else pa.array(named, pa.string())
        if len(names) != len(self):
            raise InputError(f"users: has {len(names):,} names for {len(self):,} lists; give one for each")
        rows, columns = np.nonzero(self.items >= 0)
        values = {
            "user": names.take(pa.array(rows)).cast(pa.string()),
            "rank": (columns + 1).astype(np.int32),
            "item": pa.array(self.item_ids[rows, columns], pa.string()),
            "score": self.scores[rows, columns].astype(np.float32),
        }
        return pa.table(values, schema=SCHEMA)

    def explain(self, user: int) -> str:
        """Return in words where the list of a user came from: a line for each item, and two lines below it.

        Raises:
            InputError: the lists were made without `explain=True`, or there is no such user.
        """
        if self.explanation is None:
            raise InputError("these lists have no explanation; ask for one with recommend(..., explain=True)")
        if isinstance(user, bool) or not isinstance(user, int | np.integer) or not 0 <= user < len(self):
            raise InputError(f"user={user!r}: is not the number of a list, which are 0 .. {len(self) - 1}")
        found, lines = self.explanation, []
        for rank in np.flatnonzero(self.items[user] >= 0):
            named = self._named(int(self.items[user, rank]), self.item_ids[user, rank])
            lines.append(f"{rank + 1}. {named}: {self.scores[user, rank]:.4f}")
            if self.is_popular[user]:
                lines.append("   no item of the history is known: one of the items that occur most often")
                continue
            parts = ", ".join(f"{c} {x:+.4f}" for c, x in zip(found.channels, found.parts[user, rank], strict=True))
            lines.append(f"   {'channels, before they are fused' if found.is_fused else 'channels'}: {parts}")
            changes = found.changes[user, rank]
            order = [t for t in np.argsort(-changes) if np.isfinite(changes[t])][:3]
            if order:
                came = (
                    f"{self._named(int(found.inputs[user, t]), found.input_ids[user, t])} {changes[t]:+.4f}"
                    for t in order
                )
                lines.append(f"   history: {'; '.join(came)}")
            elif found.inputs[user, 0] >= 0:
                lines.append(f"   history: only {self._named(int(found.inputs[user, 0]), found.input_ids[user, 0])}")
        return "\n".join(lines)

    def _named(self, item: int, source_id: str) -> str:
        title = self.explanation.titles.get(item) if self.explanation else None
        return f"{source_id} ({textwrap.shorten(title, _TITLE, placeholder='...')})" if title else source_id


@dataclass(frozen=True, kw_only=True)
class SimilarItems:
    """The items most similar to one item, best first, without the item itself.

    Attributes:
        items: int64 [K'], dense ids; fewer than asked for where there are no more.
        item_ids: their source ids, Python strings [K'].
        scores: float32 [K'], cosines; for co-occurrence, its weights.
    """

    items: np.ndarray
    item_ids: np.ndarray
    scores: np.ndarray
