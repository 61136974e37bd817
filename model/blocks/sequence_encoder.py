"""The tower: a causal post-norm Transformer over item vectors, as SASRec's in RecBole.

A layer leaves open how its states have attended, because interest centres go through the same layers with
the same weights (`interest_centers`).

Shapes: S sequences, L positions, Q states asked for of a sequence, d width, h heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import ModelConfig
from model.blocks.dropout import dropout
from model.blocks.sequence_groups import Sequences
from model.cpu.feed_forward import feed_forward, literal_feed_forward
from model.cpu.fused_layer import can_fuse, residual_feed_forward

KeysValues = tuple[Tensor, Tensor]  # each [S, h, L, d/h]

_NORM_EPS = 1e-12


class TransformerLayer(nn.Module):
    """Multi-head attention and a feed-forward, each with dropout, residual and LayerNorm after it."""

    def __init__(self, config: ModelConfig, norms: bool = True) -> None:
        """Without `norms` the layer has no LayerNorms and can only be called with residual=False."""
        super().__init__()
        dim, inner = config.dim, config.ffn_dim or 4 * config.dim
        self.num_heads = config.num_heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, dim)
        self.expand = nn.Linear(dim, inner)
        self.contract = nn.Linear(inner, dim)
        self.relu = config.activation == "relu"
        self.attention_norm = nn.LayerNorm(dim, eps=_NORM_EPS) if norms else None
        self.ffn_norm = nn.LayerNorm(dim, eps=_NORM_EPS) if norms else None

    def keys_values(self, states_SLd: Tensor) -> KeysValues:
        """Keys and values of the states that enter the layer."""
        keys, values = self.key_value(states_SLd).chunk(2, dim=-1)
        return split_heads(keys, self.num_heads), split_heads(values, self.num_heads)

    def attend(self, states_SQd: Tensor, keys_values: KeysValues, visible_SQL: Tensor | None, rate: float) -> Tensor:
        """What the states find among the keys, [S, Q, d]; see `attention` for the arguments."""
        rate = rate if self.training else 0.0
        attended: Tensor = self.output(attention(self.query(states_SQd), keys_values, visible_SQL, rate))
        return attended

    def forward(
        self, states: Tensor, attended: Tensor, rate: float, residual: bool = True, literal: bool = False
    ) -> Tensor:
        """States [..., d] after attention and feed-forward.

        Args:
            states: [..., d], or with dimensions of 1 where `attended` has more.
            attended: [..., d], what they found (`attend`, or `interest_centers.center_attention`).
            rate: dropout rate.
            residual: False leaves out residuals and LayerNorms: feed-forward of the attention.
            literal: the feed-forward as MDSRec's Eq. 15 prints it, with the activation after its second map.
        """
        attended = dropout(attended, rate, self.training)
        if not residual:
            return self._feed_forward(attended, rate, literal)
        assert self.attention_norm is not None, "built without norms"
        assert self.ffn_norm is not None, "built without norms"
        if not literal and (rate == 0 or not self.training) and can_fuse(attended):
            return residual_feed_forward(
                states, attended, self.attention_norm, self.expand, self.contract, self.ffn_norm, self.relu
            )
        states = self.attention_norm(states + attended)
        return self.ffn_norm(states + self._feed_forward(states, rate, literal))

    def _feed_forward(self, states: Tensor, rate: float, literal: bool) -> Tensor:
        compute = literal_feed_forward if literal else feed_forward
        return dropout(compute(self.expand, self.contract, self.relu, states), rate, self.training)


def split_heads(states: Tensor, num_heads: int) -> Tensor:
    """[S, Q, d] -> [S, h, Q, d/h]."""
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def attention(queries_SQd: Tensor, keys_values: KeysValues, visible_SQL: Tensor | None, rate: float) -> Tensor:
    """softmax(Q K^T / sqrt(d/h)) V with dropout on the weights; [S, Q, d].

    Args:
        queries_SQd: all heads side by side.
        keys_values: [S, h, L, d/h] each.
        visible_SQL: bool, the keys that a query sees; None is causal, Q = L.
        rate: dropout rate, 0 for none.
    """
    keys, values = keys_values
    queries = split_heads(queries_SQd, keys.shape[1])
    visible = None if visible_SQL is None else visible_SQL[:, None]
    if rate == 0 or queries.device.type != "cpu":
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=visible, dropout_p=rate, is_causal=visible is None
        )
    else:
        # torch has no fused CPU kernel with dropout, and its fallback draws Bernoullis one by one.
        logits = (queries / math.sqrt(queries.shape[-1])) @ keys.transpose(-1, -2)
        if visible is None:
            visible = torch.ones(logits.shape[-2:], dtype=torch.bool).tril()
        weights = logits.masked_fill(~visible, -math.inf).softmax(dim=-1)
        mixed = dropout(weights, rate, True) @ values
    return mixed.transpose(1, 2).flatten(2)


@dataclass
class EncodedSequences:
    """What a tower knows of S sequences.

    Attributes:
        states: [S, Q, d], the states asked for.
        entering: per layer [S, L, d], the states that enter it; meaningless at pads.
        keys_values: per layer, the layer's own keys and values of those states.
    """

    states: Tensor
    entering: list[Tensor]
    keys_values: list[KeysValues]

    def split(self, num_streams: int) -> list[EncodedSequences]:
        """Undo a stacking of equal streams along S."""
        states = self.states.chunk(num_streams)
        entering = [entered.chunk(num_streams) for entered in self.entering]
        pairs = [(keys.chunk(num_streams), values.chunk(num_streams)) for keys, values in self.keys_values]
        return [
            EncodedSequences(states[s], [e[s] for e in entering], [(keys[s], values[s]) for keys, values in pairs])
            for s in range(num_streams)
        ]


class SequenceEncoder(nn.Module):
    """LayerNorm(item + position), then the layers; the oldest item has position 0."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.rate = config.dropout
        self.positions = nn.Embedding(config.max_length, config.dim)
        self.input_norm = nn.LayerNorm(config.dim, eps=_NORM_EPS)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))

    def forward(self, items_SLd: Tensor, sequences: Sequences) -> EncodedSequences:
        """Encode the sequences of a group.

        The causal mask hides the pads from every real position. The last layer has queries only for the
        states asked for: one a sequence when it is to be ranked or is a prefix row.

        Args:
            items_SLd: [n * S, L, d], n streams one after the other; L <= max_length; anything finite at pads.
            sequences: the group; `items_SLd` may repeat it.
        """
        length = items_SLd.shape[1]
        assert length <= self.positions.num_embeddings, (items_SLd.shape, self.positions.num_embeddings)
        states = self.input_norm(items_SLd + self.positions.weight[:length])
        states = dropout(states, self.rate, self.training)
        num_streams = len(states) // max(1, len(sequences.lengths))
        entering, pairs = [], []
        layers = layers_of(self.layers)
        for layer in layers:
            entering.append(states)
            pairs.append(layer.keys_values(states))
            visible = None
            if layer is layers[-1] and not sequences.asks_for_all:
                last_items = sequences.last_items().repeat(num_streams, 1)
                states = states.gather(1, last_items[:, :, None].expand(-1, -1, states.shape[2]))
                visible = sequences.visible().repeat(num_streams, 1, 1)
            states = layer(states, layer.attend(states, pairs[-1], visible, self.rate), self.rate)
        return EncodedSequences(states, entering, pairs)


def layers_of(modules: nn.Module) -> list[TransformerLayer]:
    """The layers in a ModuleList, typed."""
    assert isinstance(modules, nn.ModuleList)
    return cast(list[TransformerLayer], list(modules))


def initialise(module: nn.Module, std: float) -> None:
    """Matrices and tables N(0, std), biases 0, LayerNorms the identity (RecBole's)."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
