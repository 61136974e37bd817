"""Estimates the memory that centre attention keeps for the backward, and decides whether to recompute it instead.

The *centre path* is the computation of all layers of the interest centres.

Shapes: k centres, d width, h heads, L positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from configs.model_options import ModelConfig, own_knobs
from configs.systems.mdsrec import MDSRecConfig
from contracts.batch import SequenceGroup
from model.cpu.dispatch import Part, Path, choose, has_few_keys, work_on

# Of a GPU's memory, the share that centre attention may keep even if the config allows less.
_SHARE_OF_GPU = 1 / 8


def is_recomputed(config: ModelConfig, centers: Sequence[Tensor], groups: Iterable[SequenceGroup]) -> bool:
    """Return whether the backward recomputes the centre path of a batch from its inputs.

    Args:
        config: its `mdsrec.center_memory_gib` limits what may be kept for the backward; see `budget_bytes`.
        centers: per modality [k, d].
        groups: the groups of the batch.
    """
    if not centers:
        return False
    groups = tuple(groups)
    stored = sum(stored_bytes(config, len(c), groups, is_compiled(config, c)) for c in centers)
    work = work_on(
        centers[0], Part.CENTER_PATH, stored_bytes=stored, budget_bytes=budget_bytes(config, centers[0].device)
    )
    return choose(work).path is Path.RECOMPUTED


def budget_bytes(config: ModelConfig, device: torch.device) -> float:
    """Return the bytes that the centre path may keep: `center_memory_gib`, or more on a GPU that has more.

    On a GPU, recomputing costs a third of the time of the centre path, and an eighth of the memory is seldom missed.
    The value 0 always recomputes.
    """
    budget = own_knobs(config, MDSRecConfig).center_memory_gib * 2**30
    if device.type != "cuda" or not budget:
        return budget
    return max(budget, _SHARE_OF_GPU * torch.cuda.get_device_properties(device).total_memory)


def is_compiled(config: ModelConfig, centers: Tensor) -> bool:
    """Return whether the layers of these centres run in compiled loops, which keep less than torch's operators."""
    options = own_knobs(config, MDSRecConfig)
    if not options.center_residual or options.center_feed_forward == "literal":
        return False
    return choose(work_on(centers, Part.AFTER_ATTENTION, rate=options.center_dropout)).path is Path.COMPILED


def stored_bytes(config: ModelConfig, num_centers: int, groups: Iterable[SequenceGroup], compiled: bool) -> int:
    """Return the bytes that one modality's centre path keeps for the backward of these groups, if not recomputed.

    A row is one centre of one state. For each layer and row, autograd keeps a number of vectors of width d for matrix
    products and norms (fewer in compiled loops), the input of the activation, and one attention weight per head and
    key. For a sequence with few keys it also keeps the keys and values that were projected for every head. All are
    counted as float32. Except in float32 on CPU, the feed-forward keeps two inputs of the activation; the second is
    not counted.
    """
    inner = config.ffn_dim or 4 * config.dim
    floats = 0
    for group in groups:
        weights = config.num_heads * group.length
        few_keys = has_few_keys(group.length, config.dim // config.num_heads)
        widths = (3 if few_keys else 5) if compiled else 8
        floats += group.count * group.states * num_centers * (widths * config.dim + inner + weights)
        if few_keys:
            floats += group.count * 3 * weights * config.dim
    return 4 * config.num_layers * floats
