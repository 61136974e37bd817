"""The tower: a causal post-norm Transformer over item vectors, as SASRec's in RecBole (MDSRec Eq. 7-9).

A layer's `forward` receives the result of the attention instead of computing it, because interest centres use the same
layers with another attention (`interest_centers`). Each equation below is its plain form. Its decorator names the
faster paths, and `model/cpu/dispatch.py` chooses one.

Shapes: S sequences, L positions, Q requested states of a sequence, d width, h heads, w = d/h width of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import ModelConfig
from model.blocks.sequence_groups import Sequences
from model.cpu.dispatch import Path, with_faster_paths
from model.cpu.dropout import dropout
from model.cpu.feed_forward import feed_forward_work, one_buffer_feed_forward
from model.cpu.fused_layer import after_attention_work, compiled_after_attention
from model.cpu.layer_parts import LayerParts
from model.cpu.torch_attention import kernel_attention, tower_attention_work

KeysValues = tuple[Tensor, Tensor]  # each [S, h, L, w]

NORM_EPS = 1e-12


class TransformerLayer(nn.Module):
    """Multi-head attention and a feed-forward, each followed by dropout, residual and LayerNorm."""

    def __init__(self, config: ModelConfig, norms: bool = True) -> None:
        """Build the layer; without `norms` it has no LayerNorms, and `forward` requires residual=False."""
        super().__init__()
        dim, inner = config.dim, config.ffn_dim or 4 * config.dim
        self.num_heads = config.num_heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, dim)
        self.expand = nn.Linear(dim, inner)
        self.contract = nn.Linear(inner, dim)
        self.relu = config.activation == "relu"
        self.attention_norm = nn.LayerNorm(dim, eps=NORM_EPS) if norms else None
        self.ffn_norm = nn.LayerNorm(dim, eps=NORM_EPS) if norms else None

    def keys_values(self, states_SLd: Tensor) -> KeysValues:
        """Return keys and values of the states that enter the layer, [S, h, L, w] each."""
        keys, values = self.key_value(states_SLd).chunk(2, dim=-1)
        return split_heads(keys, self.num_heads), split_heads(values, self.num_heads)

    def attend(self, states_SQd: Tensor, keys_values: KeysValues, visible_SQL: Tensor | None, rate: float) -> Tensor:
        """Return the result of the attention, [S, Q, d]; see `attention` for the arguments."""
        queries_ShQw = split_heads(self.query(states_SQd), self.num_heads)
        mixed_ShQw = attention(queries_ShQw, keys_values, visible_SQL, rate if self.training else 0.0)
        attended: Tensor = self.output(mixed_ShQw.transpose(1, 2).flatten(2))
        return attended

    def forward(
        self, states: Tensor, attended: Tensor, rate: float, residual: bool = True, literal: bool = False
    ) -> Tensor:
        """Return the states [..., d] after the layer.

        Args:
            states: [..., d], the states that enter; dimensions of size 1 are broadcast to those of `attended`.
            attended: [..., d], the result of `attend` or of `interest_centers.center_attention`.
            rate: dropout rate.
            residual: whether there are residuals and LayerNorms; False: only the feed-forward of `attended`.
            literal: whether the feed-forward is that of MDSRec's Eq. 15 as printed, with the activation after its
                second map.
        """
        rate = rate if self.training else 0.0
        if residual and not literal:
            return after_attention(self, states, attended, rate)
        compute = literal_feed_forward if literal else feed_forward
        attended = dropout(attended, rate, self.training)
        if not residual:
            return dropout(compute(self, attended), rate, self.training)
        assert self.attention_norm is not None, "built without norms"
        assert self.ffn_norm is not None, "built without norms"
        states = self.attention_norm(states + attended)
        return cast(Tensor, self.ffn_norm(states + dropout(compute(self, states), rate, self.training)))


@with_faster_paths(tower_attention_work, {Path.TORCH_KERNEL: kernel_attention})
def attention(queries_ShQw: Tensor, keys_values: KeysValues, visible_SQL: Tensor | None, rate: float) -> Tensor:
    """Return softmax(Q K^T / sqrt(w)) V with dropout on the weights, [S, h, Q, w].

    Args:
        queries_ShQw: the queries of every head.
        keys_values: [S, h, L, w] each.
        visible_SQL: bool, the keys that each query sees, of which one is real; [S, 1, L]: all queries see the same
            keys; None: a causal mask, with Q = L.
        rate: dropout rate of the attention weights; 0: no dropout.
    """
    keys, values = keys_values
    logits_ShQL = (queries_ShQw / math.sqrt(queries_ShQw.shape[-1])) @ keys.transpose(-1, -2)
    if visible_SQL is None:
        visible_SQL = torch.ones(logits_ShQL.shape[-2:], dtype=torch.bool, device=keys.device).tril()[None]
    weights_ShQL = logits_ShQL.masked_fill(~visible_SQL[:, None], -math.inf).softmax(dim=-1)
    return dropout(weights_ShQL, rate, True) @ values


@with_faster_paths(after_attention_work, {Path.COMPILED: compiled_after_attention})
def after_attention(layer: LayerParts, states: Tensor, attended: Tensor, rate: float) -> Tensor:
    """Return LayerNorm(h + FFN(h)) with h = LayerNorm(states + attended), [..., d].

    Args:
        layer: the layer with these norms and maps.
        states: [..., d]; leading dimensions of size 1 are broadcast to those of `attended`.
        attended: [..., d], the result of the attention.
        rate: dropout rate of `attended` and of the feed-forward's result; 0: no dropout.
    """
    assert layer.attention_norm is not None, "built without norms"
    assert layer.ffn_norm is not None, "built without norms"
    h = layer.attention_norm(states + dropout(attended, rate, True))
    return cast(Tensor, layer.ffn_norm(h + dropout(feed_forward(layer, h), rate, True)))


@with_faster_paths(feed_forward_work, {Path.ONE_BUFFER: one_buffer_feed_forward})
def feed_forward(layer: LayerParts, states: Tensor) -> Tensor:
    """Return FFN(s) = W2 act(W1 s + b1) + b2, where act is GELU or ReLU; [..., d] -> [..., d]."""
    inner = layer.expand(states)
    return cast(Tensor, layer.contract(F.relu(inner) if layer.relu else F.gelu(inner)))


def literal_feed_forward(layer: LayerParts, states: Tensor) -> Tensor:
    """Return act(W2 (W1 s + b1) + b2), MDSRec's Eq. 15 as it is printed; [..., d] -> [..., d].

    There is no activation between the two maps, so together they are a single affine map.
    """
    outer = layer.contract(layer.expand(states))
    return F.relu(outer) if layer.relu else F.gelu(outer)


def split_heads(states: Tensor, num_heads: int) -> Tensor:
    """[S, Q, d] -> [S, h, Q, d/h]."""
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


@dataclass
class EncodedSequences:
    """The states of S sequences in a tower.

    Attributes:
        states: [S, Q, d], the requested states.
        entering: per layer [S, L, d], the states that enter the layer; meaningless at padding.
        keys_values: per layer, the layer's keys and values of these states.
    """

    states: Tensor
    entering: list[Tensor]
    keys_values: list[KeysValues]

    def split(self, num_streams: int) -> list[EncodedSequences]:
        """Return the streams one by one, if `num_streams` streams were stacked along S."""
        sizes = [self.states.shape[0] // num_streams] * num_streams
        states = self.states.split(sizes)
        entering = [entered.split(sizes) for entered in self.entering]
        pairs = [(keys.split(sizes), values.split(sizes)) for keys, values in self.keys_values]
        return [
            EncodedSequences(states[s], [e[s] for e in entering], [(keys[s], values[s]) for keys, values in pairs])
            for s in range(num_streams)
        ]


class SequenceEncoder(nn.Module):
    """A tower: LayerNorm(item + position), then the layers. The oldest item has position 0."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.rate = config.dropout
        self.positions = nn.Embedding(config.max_length, config.dim)
        self.input_norm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))

    def forward(self, items_SLd: Tensor, sequences: Sequences) -> EncodedSequences:
        """Encode the sequences of a group.

        Args:
            items_SLd: [n * S, L, d], n streams one after the other; L <= max_length; padding holds any finite values.
            sequences: the group; each of the n streams has its S sequences.
        """
        length = items_SLd.shape[1]
        assert length <= self.positions.num_embeddings, (items_SLd.shape, self.positions.num_embeddings)
        states = self.input_norm(items_SLd + self.positions.weight[:length])
        states = dropout(states, self.rate, self.training)
        return through_layers(self.layers, states, sequences, self.rate)


def through_layers(modules: nn.ModuleList, states_SLd: Tensor, sequences: Sequences, rate: float) -> EncodedSequences:
    """Pass the states that enter a tower through its layers.

    The causal mask hides the padding from every item. The last layer has queries only for the requested states, which
    is one per sequence for a prefix row or a user to be ranked.

    Args:
        modules: the layers, `TransformerLayer`s.
        states_SLd: [n * S, L, d], n streams one after the other; padding holds any finite values.
        sequences: the group; each of the n streams has its S sequences.
        rate: dropout rate inside the layers.
    """
    states = states_SLd
    num_streams = states.shape[0] // max(1, sequences.count)
    entering, pairs = [], []
    layers = layers_of(modules)
    for layer in layers:
        entering.append(states)
        pairs.append(layer.keys_values(states))
        visible = None
        if layer is layers[-1] and not sequences.requests_all:
            last_items = sequences.last_items().repeat(num_streams, 1)
            states = states.gather(1, last_items[:, :, None].expand(-1, -1, states.shape[2]))
            visible = sequences.visible().repeat(num_streams, 1, 1)
        states = layer(states, layer.attend(states, pairs[-1], visible, rate), rate)
    return EncodedSequences(states, entering, pairs)


def layers_of(modules: nn.Module) -> list[TransformerLayer]:
    """Return the layers in a ModuleList, with their type."""
    assert isinstance(modules, nn.ModuleList)
    return cast(list[TransformerLayer], list(modules))


def initialise(module: nn.Module, std: float) -> None:
    """Initialise as RecBole: matrices and tables from N(0, std), biases with 0, LayerNorms as the identity."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
