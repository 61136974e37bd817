"""The interface of a Transformer layer for faster paths; `TransformerLayer` in `model/blocks/` implements it."""

from __future__ import annotations

from typing import Protocol

from torch import nn


class LayerParts(Protocol):
    """Linear maps and norms of one layer; `relu` says whether its activation is ReLU, otherwise GELU."""

    query: nn.Linear
    output: nn.Linear
    expand: nn.Linear
    contract: nn.Linear
    relu: bool
    attention_norm: nn.LayerNorm | None
    ffn_norm: nn.LayerNorm | None
