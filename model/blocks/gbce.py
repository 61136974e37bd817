"""gBCE, the loss of gSASRec (Petrov and Macdonald, RecSys 2023), over channels.

With negative sampling, binary cross entropy makes a model overconfident: it sees its positive in every step and most
negatives rarely. gBCE corrects the probability of the positive, sigmoid(s+), by a power beta. In the paper, a target
has k negatives that are drawn uniformly from the other N - 1 items, and

    loss = -(1 / (k + 1)) * (beta * log sigmoid(s+) + sum over the negatives of log sigmoid(-s-)),
    alpha = k / (N - 1),   beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha) = 1 - t * (1 - alpha).

t = 0 is binary cross entropy, and t = 1 is calibrated: sigmoid(s+) then tends to the true probability.

Here all rows of a step share the candidates, and these may be drawn from any distribution, or be targets of other rows.
Candidate j has an importance weight w_j (`data/sampling/negatives.py`), with which the sum of w_j f(j) over the
candidates is an unbiased estimate of the sum of f(j) over all items but the target. The paper's sum over k uniform
negatives has the expectation alpha times that sum. So the loss of a row with target t is here

    -(1 / (k + 1)) * (beta * log sigmoid(s_t) + alpha * sum over candidates j != t of w_j * log sigmoid(-s_j)),

whose expectation is that of the paper's loss for any distribution of the draws. With uniform draws alone, alpha * w_j
is nearly the number of times that j was drawn, as in the paper.

k is the number of draws of a step (training.negatives.draws), and N - 1 if the draws are more. In-batch candidates do
not count. k only sets alpha, so it sets how much positives weigh against negatives in expectation. If in-batch
candidates counted, the batch size would change that. They reduce the variance of the estimate, which the weights
account for. Without draws (draws=0) there is no sampling rate, and alpha would be 0, so the config refuses that.
Without sampling, all other items are negatives: k = N - 1, alpha = beta = 1, and the loss is plain binary cross entropy
over all items, whatever t is. Chunks need a few more buffers of their size than those of cross entropy.

Offset. With all scores equal, the loss is least at log(beta / k), which is far below 0. To get there from scores of 0,
all item rows and all states move in one common direction, until users hardly differ. Training then stays for a long
time, or for good, at scores that are the same for every user. With `prior_offset` the logits are s + log(beta / k), so
that scores of 0 are already there. The offset is the same for every item, so it changes no ranking. The paper has none.
SigLIP (Zhai et al., ICCV 2023), which has as unequal numbers of positives and negatives, begins with such a bias.

Shapes: B targets of this rank, b rows of a chunk, C columns of logits, Q targets of a sequence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.blocks.criterion import Criterion


@dataclass(frozen=True, kw_only=True)
class GBCE(Criterion):
    """gBCE as a `Criterion`, with its constants.

    Attributes:
        num_items: N, the items of the catalogue, at least 1.
        draws: number of items that are drawn in a step, at least 1; None: all items are candidates.
        calibration: t, in [0, 1].
        prior_offset: whether logits are scores plus log(beta / k); False: logits are scores, as in the paper.
    """

    num_items: int
    draws: int | None
    calibration: float
    prior_offset: bool = False

    @property
    def num_negatives(self) -> int:
        """k, the number of negatives that the loss stands for."""
        others = self.num_items - 1
        return others if self.draws is None else min(self.draws, others)

    @property
    def alpha(self) -> float:
        """The share of the other items that k negatives are; 1 if there are no other items."""
        return self.num_negatives / (self.num_items - 1) if self.num_items > 1 else 1.0

    @property
    def beta(self) -> float:
        """The power of the positive's probability."""
        return 1 - self.calibration * (1 - self.alpha)

    @property
    def offset(self) -> float:
        """The number that is added to every score; 0 without `prior_offset`, or if there are no negatives."""
        return math.log(self.beta / self.num_negatives) if self.prior_offset and self.num_negatives else 0.0

    def row_loss(self, log_weights: Tensor) -> GBCERows:
        """Return the loss of rows whose columns have these weights, log w_c [C]."""
        scale = 1 / (self.num_negatives + 1)
        return GBCERows(
            positive=self.beta * scale, negative=self.alpha * scale, offset=self.offset, log_weights=log_weights
        )


@dataclass(frozen=True, kw_only=True)
class GBCERows:
    """-(positive * log sigmoid(s_t) + negative * sum over columns c, but the target's, of w_c * log sigmoid(-l_c)).

    w_c is 1 in the columns of the same sequence. log sigmoid(x) is computed as min(x, 0) - log(1 + exp(-|x|)), which
    is exact and finite for any finite x, and its gradient is a sigmoid.

    Attributes:
        positive: beta / (k + 1).
        negative: alpha / (k + 1).
        offset: what is added to all scores and logits.
        log_weights: log w_c, [C]; -inf for a column that is in no sum.
    """

    positive: float
    negative: float
    offset: float
    log_weights: Tensor

    def logits(self, user_bd: Tensor, columns_Cd: Tensor, same_bQ: Tensor | None) -> Tensor:  # noqa: ARG002
        return user_bd @ columns_Cd.T

    def logits_of(self, scores_bC: Tensor, same_bQ: Tensor | None) -> Tensor:  # noqa: ARG002
        return scores_bC.clone()

    def sum_and_gradients(
        self, logits_bC: Tensor, score_b1: Tensor, own_b1: Tensor, same_bQ: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits_bC.add_(self.offset)
        score_b1 = score_b1 + self.offset
        weights_bC = (self.negative * self.log_weights.exp()).expand_as(logits_bC).clone()
        if same_bQ is not None:
            weights_bC.scatter_(1, same_bQ, self.negative)
        weights_bC.scatter_(1, own_b1, 0.0)
        total = -self.positive * F.logsigmoid(score_b1).sum()
        total -= (F.logsigmoid(-logits_bC) * weights_bC).sum()
        return total, weights_bC.mul_(logits_bC.sigmoid_()), -self.positive * torch.sigmoid(-score_b1)
