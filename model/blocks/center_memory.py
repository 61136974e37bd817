"""What the backward keeps of the centre path, and whether it is worth computing the path twice instead.

Shapes: k centres, d width, h heads, L positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from configs.model_options import ModelConfig, own_knobs
from configs.systems.mdsrec import MDSRecConfig
from contracts.batch import SequenceGroup
from model.cpu.dispatch import Part, Path, choose, has_few_keys, work_on


def is_recomputed(config: ModelConfig, centers: Sequence[Tensor], groups: Iterable[SequenceGroup]) -> bool:
    """Whether the backward computes the centre path of a batch again, from its inputs.

    Args:
        config: `mdsrec.center_memory_gib` is the most that the backward may keep.
        centers: per modality [k, d].
        groups: of the batch.
    """
    if not centers:
        return False
    groups = tuple(groups)
    stored = sum(stored_bytes(config, len(c), groups, is_compiled(config, c)) for c in centers)
    budget = own_knobs(config, MDSRecConfig).center_memory_gib * 2**30
    work = work_on(centers[0], Part.CENTER_PATH, stored_bytes=stored, budget_bytes=budget)
    return choose(work).path is Path.RECOMPUTED


def is_compiled(config: ModelConfig, centers: Tensor) -> bool:
    """Whether the layers of these centres run in compiled loops, which keep less; else in torch's operators."""
    options = own_knobs(config, MDSRecConfig)
    if not options.center_residual or options.center_feed_forward == "literal":
        return False
    return choose(work_on(centers, Part.AFTER_ATTENTION, rate=options.center_dropout)).path is Path.COMPILED


def stored_bytes(config: ModelConfig, num_centers: int, groups: Iterable[SequenceGroup], compiled: bool) -> int:
    """Bytes that the backward keeps of one modality's centre path for these groups, unless it is recomputed.

    Counted per layer, in float32. A row is one centre of one state. Of each row the backward keeps the widths that
    products, norms and the activation need, fewer in compiled loops, and one attention weight per head and key. Of a
    sequence with few keys it also keeps keys and values as projected for every head. Outside of float32 on CPU the
    feed-forward keeps its width twice, which is not counted.
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
