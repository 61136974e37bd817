"""Rank items by all channels together and by each channel alone, and compute each channel's part of the scores.

If co-occurrence is added to scores (`score_gains.py`), it counts as the last channel here.

Shapes: B users; C channels; V = C + 1 rankings of a user (by all channels, then by each channel alone); D the summed
width of all channels' vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from data.sequences import target_items
from distributed.inference.channel_parts import ChannelParts
from distributed.inference.score_gains import GainRates
from distributed.inference.scoring import Scorer
from evaluation.metrics import ranks_from_counts
from evaluation.ranking import count_ranks, top_items
from experiments.case_page.cases import Ranking
from model.protocol import Channel


class ChannelScorer:
    """Ranks items by all channels together and by each channel alone, over the same item blocks as `Scorer.rank`.

    To rank by one channel, the other channels of the user's vector are set to zero. So one pass over the items computes
    all V rankings.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.inputs = scorer.inputs
        self._scorer, self._encoder = scorer, scorer.encoder
        self._recommender = scorer.system.recommender
        self._parts = ChannelParts(scorer)
        self._options = scorer.config.evaluation

    def study(self, users: np.ndarray, positions: np.ndarray, k: int) -> Ranking:
        """Rank the targets among all items in each of the V rankings, and find the best items of each.

        Ranks equal those of `Scorer.rank` except for float32 rounding: matrix products of another shape may order two
        nearly equal scores differently.

        Args:
            users: int64 [B].
            positions: int64 [B], of the targets in the users' sequences. After a sequence's end there is no target, and
                its ranks mean nothing.
            k: items of each ranking to return; all of them if there are fewer.
        """
        data = self.inputs.dataset
        self._scorer.begin("test")
        with self._scorer.evaluating(len(users), "scoring cases", item_passes=2) as (blocks, _):
            widths = [x.shape[1] for x in self._encoder.items_by_channel(np.zeros(0, dtype=np.int64))]
            views = in_views(self._encoder.users(data, users, positions), widths, len(self.channels) - len(widths))
            batch, _ = self._scorer.user_batch(
                users=np.tile(users, len(views)),
                positions=np.tile(positions, len(views)),
                vectors=views.flatten(0, 1),
                hide=self._options.mask_history,
                rates=self._rates_of_views(len(users)),
                blocks=blocks,
            )
            higher, tied, before = count_ranks([[batch]], blocks)[0]
            ranks = ranks_from_counts(higher, tied, before, self._options.ties)
            best, _ = next(iter(top_items([[batch]], blocks, k)))
            shown = best.cpu().numpy().reshape(len(views), len(users), -1)
            targets = target_items(data, users, positions)
            asked = np.concatenate([shown, np.tile(targets, (len(views), 1))[:, :, None]], axis=2)
            parts = self._parts.of(users, positions, views[0], asked)
        return Ranking(
            users=users,
            positions=positions,
            targets=targets,
            ranks=ranks.reshape(len(views), -1),
            best=shown,
            best_parts=parts[:, :, :-1],
            target_parts=parts[0, :, -1],
        )

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The model's channels; then co-occurrence, if it is added to scores."""
        return self._parts.channels

    def _rates_of_views(self, num_users: int) -> GainRates:
        """The rates of gains for each ranking and user: [V * B], all users of the first ranking first."""
        repeats, whole = self._recommender.repeat_gains().numpy(), self._scorer.rates(1)
        others = len(self.channels) - len(repeats)  # co-occurrence, if it is a channel
        of_repeats = np.concatenate([whole.repeats, repeats, np.zeros(others, np.float32)])
        related = np.concatenate([whole.cooccurrence, np.zeros_like(repeats), whole.cooccurrence[:others]])
        return GainRates(repeats=np.repeat(of_repeats, num_users), cooccurrence=np.repeat(related, num_users))


def in_views(users: Tensor, widths: Sequence[int], others: int = 0) -> Tensor:
    """Return the users' vectors for each ranking: unchanged, then with all channels but one set to zero.

    Args:
        users: [B, D], the channels' vectors, concatenated.
        widths: width of each channel; their sum is D.
        others: channels without a vector. For each of them, one ranking with all values zero is added at the end.

    Returns:
        [V, B, D].
    """
    channel = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths)).to(users.device)
    alone = torch.arange(len(widths) + others, device=users.device)[:, None] == channel
    kept = torch.cat([torch.ones_like(alone[:1]), alone])
    return users * kept[:, None, :].to(users.dtype)
