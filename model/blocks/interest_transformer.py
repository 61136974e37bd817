"""MISSRec's encoder of interests, and its decoder, which reads items and attends to encoded interests.

Both are post-norm Transformers as PyTorch's `nn.Transformer`: neither has a causal mask, each ends with a LayerNorm,
and the feed-forward has dropout also between its two maps.

Shapes: S sequences, L positions, T interests of a sequence, Q requested states, d width.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import ModelConfig
from model.blocks.sequence_encoder import NORM_EPS, TransformerLayer, attention, split_heads
from model.blocks.sequence_groups import Sequences
from model.cpu.dropout import dropout


class InterestLayer(TransformerLayer):
    """A layer whose feed-forward has dropout after the activation too, unlike those of the other towers here."""

    def after(self, states: Tensor, attended: Tensor, rate: float) -> Tensor:
        """Return LayerNorm(h + W2 dropout(act(W1 h + b1)) + b2) with h = LayerNorm(states + attended), [..., d].

        The result of the attention, `attended`, and that of the feed-forward have dropout too.
        """
        assert self.attention_norm is not None, "built without norms"
        assert self.ffn_norm is not None, "built without norms"
        rate = rate if self.training else 0.0
        h = self.attention_norm(states + dropout(attended, rate, True))
        inner = self.expand(h)
        inner = dropout(F.relu(inner) if self.relu else F.gelu(inner), rate, True)
        return cast(Tensor, self.ffn_norm(h + dropout(self.contract(inner), rate, True)))


class InterestEncoder(nn.Module):
    """Self-attention among the interests of a sequence, which have no order."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.rate = config.dropout
        self.layers = nn.ModuleList(InterestLayer(config) for _ in range(config.num_layers // 2))
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS)

    def forward(self, interests_STd: Tensor, is_interest_ST: Tensor) -> Tensor:
        """Return the encoded interests, [S, T, d]; meaningless where `is_interest_ST` is false."""
        states, visible = interests_STd, is_interest_ST[:, None].expand(-1, interests_STd.shape[1], -1)
        for layer in self.layers:
            assert isinstance(layer, InterestLayer)
            attended = layer.attend(states, layer.keys_values(states), visible, self.rate)
            states = layer.after(states, attended, self.rate)
        return cast(Tensor, self.norm(states))


class DecoderLayer(InterestLayer):
    """Items attend to each other, with a residual and a LayerNorm; then to the interests; then the feed-forward.

    The base class has the maps of the attention to the interests.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.item_query = nn.Linear(config.dim, config.dim)
        self.item_key_value = nn.Linear(config.dim, 2 * config.dim)
        self.item_output = nn.Linear(config.dim, config.dim)
        self.item_norm = nn.LayerNorm(config.dim, eps=NORM_EPS)

    def among_items(self, queries_SQd: Tensor, states_SLd: Tensor, is_item_SL: Tensor, rate: float) -> Tensor:
        """Return the states of `queries_SQd` after they attended to all items of their sequence, [S, Q, d]."""
        keys, values = (split_heads(x, self.num_heads) for x in self.item_key_value(states_SLd).chunk(2, dim=-1))
        visible = is_item_SL[:, None].expand(-1, queries_SQd.shape[1], -1)
        rate = rate if self.training else 0.0
        mixed = attention(split_heads(self.item_query(queries_SQd), self.num_heads), (keys, values), visible, rate)
        attended = self.item_output(mixed.transpose(1, 2).flatten(2))
        return cast(Tensor, self.item_norm(queries_SQd + dropout(attended, rate, self.training)))


class InterestDecoder(nn.Module):
    """Layers over the items of a sequence; the state at the last item is the user's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.rate = config.dropout
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers // 2))
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS)

    def forward(self, states_SLd: Tensor, group: Sequences, memory_STd: Tensor, is_interest_ST: Tensor) -> Tensor:
        """Return the state at the last item of each sequence, [S, 1, d].

        Args:
            states_SLd: the items; padding holds any finite values.
            group: the sequences.
            memory_STd: the encoded interests.
            is_interest_ST: bool, which of them are real.
        """
        assert group.num_queries == 1, "each state sees the whole input, so a sequence has one state only"
        is_item_SL = torch.arange(group.length, device=group.lengths.device) < group.lengths[:, None]
        last_S1d = group.last_items()[:, :, None].expand(-1, -1, states_SLd.shape[2])
        queries = states_SLd
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, DecoderLayer)
            if number == len(self.layers) - 1:  # the last layer computes the requested states only
                queries = states_SLd.gather(1, last_S1d)
            queries = layer.among_items(queries, states_SLd, is_item_SL, self.rate)
            visible = is_interest_ST[:, None].expand(-1, queries.shape[1], -1)
            attended = layer.attend(queries, layer.keys_values(memory_STd), visible, self.rate)
            states_SLd = queries = layer.after(queries, attended, self.rate)
        return cast(Tensor, self.norm(queries))


def initialise_attention(module: nn.Module) -> None:
    """Initialise queries, keys and values as PyTorch does: uniformly, within sqrt(6 / 4d)."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear) and name.endswith(("query", "key_value")):
            nn.init.uniform_(part.weight, -math.sqrt(1.5 / part.in_features), math.sqrt(1.5 / part.in_features))
