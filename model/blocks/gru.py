"""A GRU without biases over the sequences of a group, as in RecBole's GRU4Rec.

Shapes: S sequences, L positions, Q requested states of a sequence, w width of the hidden state.
"""

from __future__ import annotations

from torch import Tensor, nn

from configs.systems.gru4rec import GRU4RecConfig
from model.blocks.sequence_groups import Sequences


def new_gru(input_size: int, knobs: GRU4RecConfig) -> nn.GRU:
    """Return a GRU without biases. Its weights are uniform within 1/sqrt(w) of 0, which is PyTorch's default."""
    return nn.GRU(input_size, knobs.hidden_size, knobs.num_layers, bias=False, batch_first=True)


def gru_states(gru: nn.GRU, items_SLd: Tensor, sequences: Sequences) -> Tensor:
    """Return the hidden states of the last layer that are requested of a group, [S, Q, w].

    A GRU reads from left to right and the padding is on the right. So a state sees the items up to its own, and no
    padding.

    Args:
        gru: reads tensors of the form [S, L, width].
        items_SLd: the vectors of the items, oldest first.
        sequences: the group.
    """
    states: Tensor = gru(items_SLd)[0]
    if sequences.requests_all:
        return states
    return states.gather(1, sequences.last_items()[:, :, None].expand(-1, -1, states.shape[2]))
