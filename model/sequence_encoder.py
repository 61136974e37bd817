"""The tower: a causal post-norm Transformer over item vectors, as SASRec's in RecBole.

Its layers are written as "queries attend to keys and values", because interest centres attend to
the same sequence with the same weights (`interest_centers`).

Shapes: B users, L positions, Q queries per user, d width, h heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import ModelConfig
from model.dropout import dropout

KeysValues = tuple[Tensor, Tensor]  # each [B, h, L, d/h]

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
        self.activation = F.gelu if config.activation == "gelu" else F.relu
        self.attention_norm = nn.LayerNorm(dim, eps=_NORM_EPS) if norms else None
        self.ffn_norm = nn.LayerNorm(dim, eps=_NORM_EPS) if norms else None

    def keys_values(self, states_BLd: Tensor) -> KeysValues:
        """Keys and values of the states that enter the layer."""
        keys, values = self.key_value(states_BLd).chunk(2, dim=-1)
        return self._split_heads(keys), self._split_heads(values)

    def forward(
        self,
        queries_BQd: Tensor,
        keys_values: KeysValues,
        visible: Tensor | None,
        rate: float,
        residual: bool = True,
    ) -> Tensor:
        """[B, Q, d] states of the queries after attention and feed-forward.

        Args:
            queries_BQd: [B, Q, d], or [1, Q, d] when every user has the same queries.
            keys_values: of the sequence, from `keys_values`.
            visible: bool, broadcastable to [B, 1, Q, L]: the keys a query sees; None is causal, Q = L.
            rate: dropout rate.
            residual: False leaves out residuals and LayerNorms: feed-forward of the attention.
        """
        queries = self._split_heads(self.query(queries_BQd))
        mixed = attention(queries, *keys_values, visible, rate if self.training else 0.0)
        attended = dropout(self.output(mixed.transpose(1, 2).flatten(2)), rate, self.training)
        if not residual:
            return self._feed_forward(attended, rate)
        assert self.attention_norm is not None, "built without norms"
        assert self.ffn_norm is not None, "built without norms"
        states = self.attention_norm(queries_BQd + attended)
        return self.ffn_norm(states + self._feed_forward(states, rate))

    def _feed_forward(self, states: Tensor, rate: float) -> Tensor:
        return dropout(self.contract(self.activation(self.expand(states))), rate, self.training)

    def _split_heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def attention(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None, rate: float) -> Tensor:
    """softmax(Q K^T / sqrt(d/h)) V with dropout on the weights; [B, h, Q, d/h].

    Args:
        queries: [B, h, Q, d/h], or [1, h, Q, d/h] for all users alike.
        keys, values: [B, h, L, d/h].
        visible: bool, broadcastable to [B, h, Q, L]; None is causal.
        rate: dropout rate, 0 for none.
    """
    if rate == 0 or queries.device.type != "cpu":
        queries = queries.expand(len(keys), -1, -1, -1)
        return F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=visible, dropout_p=rate, is_causal=visible is None
        )
    # torch has no fused CPU kernel with dropout, and its fallback draws Bernoullis one by one.
    logits = (queries / math.sqrt(queries.shape[-1])) @ keys.transpose(-1, -2)
    if visible is None:
        visible = torch.ones(logits.shape[-2:], dtype=torch.bool).tril()
    weights = logits.masked_fill(~visible, -math.inf).softmax(dim=-1)
    return dropout(weights, rate, True) @ values


@dataclass
class EncodedSequences:
    """What a tower knows of B sequences.

    Attributes:
        last: [B, d], the state at each sequence's last real position.
        entering: per layer [B, L, d], the states that enter it; meaningless at pads.
        keys_values: per layer, the layer's own keys and values of those states.
    """

    last: Tensor
    entering: list[Tensor]
    keys_values: list[KeysValues]

    def split(self, num_streams: int) -> list[EncodedSequences]:
        """Undo a stacking of equal streams along B."""
        last = self.last.chunk(num_streams)
        entering = [states.chunk(num_streams) for states in self.entering]
        pairs = [(keys.chunk(num_streams), values.chunk(num_streams)) for keys, values in self.keys_values]
        return [
            EncodedSequences(last[s], [e[s] for e in entering], [(keys[s], values[s]) for keys, values in pairs])
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

    def forward(self, items_BLd: Tensor, lengths_B: Tensor) -> EncodedSequences:
        """Encode right-padded sequences.

        The causal mask hides the pads from every real position. Only the state of the last one is
        asked for, so the last layer has one query per sequence.

        Args:
            items_BLd: [B, L, d], L <= max_length; anything finite at pads.
            lengths_B: int64 [B], 1..L.
        """
        length = items_BLd.shape[1]
        assert length <= self.positions.num_embeddings, (items_BLd.shape, self.positions.num_embeddings)
        states = self.input_norm(items_BLd + self.positions.weight[:length])
        states = dropout(states, self.rate, self.training)
        entering, pairs = [], []
        layers = layers_of(self.layers)
        for layer in layers:
            entering.append(states)
            pairs.append(layer.keys_values(states))
            if layer is not layers[-1]:
                states = layer(states, pairs[-1], None, self.rate)
            else:
                last = torch.arange(len(states), device=states.device), lengths_B - 1
                states = layer(states[last].unsqueeze(1), pairs[-1], visible_keys(lengths_B, length), self.rate)
        return EncodedSequences(states.squeeze(1), entering, pairs)


def layers_of(modules: nn.Module) -> list[TransformerLayer]:
    """The layers in a ModuleList, typed."""
    assert isinstance(modules, nn.ModuleList)
    return cast(list[TransformerLayer], list(modules))


def visible_keys(lengths_B: Tensor, length: int) -> Tensor:
    """bool [B, 1, 1, L]: True at real positions."""
    return (torch.arange(length, device=lengths_B.device) < lengths_B[:, None])[:, None, None]


def initialise(module: nn.Module, std: float) -> None:
    """Matrices and tables N(0, std), biases 0, LayerNorms the identity (RecBole's)."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
