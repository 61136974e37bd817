"""The parts of a Transformer layer that a faster path reads. `TransformerLayer` in `model/blocks/` has them."""

from __future__ import annotations

from typing import Protocol

from torch import nn


class LayerParts(Protocol):
    """Maps and norms of one layer; `relu` says whether its activation is ReLU, otherwise GELU."""

    query: nn.Linear
    output: nn.Linear
    expand: nn.Linear
    contract: nn.Linear
    relu: bool
    attention_norm: nn.LayerNorm | None
    ffn_norm: nn.LayerNorm | None
