"""Parameters of RecBole's blocks under our names, as functions of the authors' parameters.

Each function takes and returns tensors by name. Everything is plain torch, so gradients with respect to the authors'
parameters come back through it, however the two forms differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def item_table(official: Weights, name: str = "item_embedding.weight") -> Weights:
    """Return the ID rows without the row of padding."""
    return {"table.weight": official[name][1:]}


def same(official: Weights, ours: str, theirs: str) -> Weights:
    """Return all parameters of a module that both forms have, such as a Linear or a LayerNorm."""
    found = {key.removeprefix(theirs): x for key, x in official.items() if key.startswith(f"{theirs}.")}
    assert found, f"the fixture has no parameters {theirs}.*"
    return {ours + rest: x for rest, x in found.items()}


def transformer_layers(official: Weights, ours: str, theirs: str) -> Weights:
    """Return the layers of RecBole's TransformerEncoder; keys and values are one map of ours."""
    found: Weights = {}
    number = 0
    while f"{theirs}.layer.{number}.feed_forward.dense_1.weight" in official:
        layer, attention = f"{ours}.{number}", f"{theirs}.layer.{number}.multi_head_attention"
        feed_forward = f"{theirs}.layer.{number}.feed_forward"
        for part in ("weight", "bias"):
            pair = [official[f"{attention}.{kind}.{part}"] for kind in ("key", "value")]
            found[f"{layer}.key_value.{part}"] = torch.cat(pair)
        found |= same(official, f"{layer}.query", f"{attention}.query")
        found |= same(official, f"{layer}.output", f"{attention}.dense")
        found |= same(official, f"{layer}.attention_norm", f"{attention}.LayerNorm")
        found |= same(official, f"{layer}.expand", f"{feed_forward}.dense_1")
        found |= same(official, f"{layer}.contract", f"{feed_forward}.dense_2")
        found |= same(official, f"{layer}.ffn_norm", f"{feed_forward}.LayerNorm")
        number += 1
    assert number, f"the fixture has no layers {theirs}.layer.*"
    return found


def tower(official: Weights, ours: str = "recommender.encoder", theirs: str = "trm_encoder") -> Weights:
    """Return a `SequenceEncoder`: positions, the LayerNorm of the input, and the layers."""
    return {
        f"{ours}.positions.weight": official["position_embedding.weight"],
        **same(official, f"{ours}.input_norm", "LayerNorm"),
        **transformer_layers(official, f"{ours}.layers", theirs),
    }


def feature_maps(official: Weights, ours: str, fields: Sequence[str], pooling: str = "sum") -> Weights:
    """Return RecBole's tables of dense features as linear maps, ours in the order of names, with biases of 0.

    Args:
        official: the authors' parameters.
        ours: the name of our ModuleList.
        fields: names of the features in the order of the authors' tables.
        pooling: "mean" if the authors divide the product by the width of the feature.
    """
    found: Weights = {}
    for place, field in enumerate(sorted(fields)):
        table = official[f"feature_embed_layer.float_seq_embedding_table.item.{fields.index(field)}.weight"]
        weight = table[1:].T / (len(table) - 1 if pooling == "mean" else 1)
        found |= {f"{ours}.{place}.weight": weight, f"{ours}.{place}.bias": torch.zeros_like(weight[:, 0])}
    return found


def in_our_order(weight: Tensor, fields: Sequence[str], first: int = 0) -> Tensor:
    """Reorder the columns of a map over concatenated blocks: `first` blocks that stay, then one for each feature."""
    blocks = weight.chunk(first + len(fields), dim=1)
    return torch.cat([*blocks[:first], *(blocks[first + fields.index(field)] for field in sorted(fields))], dim=1)
