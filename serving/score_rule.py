"""Describes in JSON how a run computes scores, so that another program can apply the rule to exported vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from distributed.inference.scoring import Scorer
from model.blocks.score_fusion import DynamicFusion

SCHEMA_VERSION = 1
_RULE = (
    "score(user, item) = inner product of the user's and the item's exported vectors; with `fusion`, the fused score "
    "of the inner products of the channels instead. To this, add for an item among the user's latest max_length items "
    "gains.repeats, and for every other item gains.cooccurrence.weight * sum over t of decay^t * O[x_t, item], where "
    "x_0 is the latest item, x_1 the one before it, and so on. The exported vectors have the weights and temperatures "
    "of the channels already. Where mask_history.lists is true, items of the user's history are left out of lists, as "
    "recommend does unless it is told otherwise; mask_history.metrics says whether they were left out for the run's "
    "own metrics. Equal scores are ordered by dense id. A user without a known item has no vector, and gets the items "
    "with the greatest popularity."
)


def score_rule(scorer: Scorer, step: int | None) -> dict[str, Any]:
    """Return what a server needs beside the vectors to compute the scores of a run.

    The `channels` are the parts of a vector: numbers start .. stop - 1 of it. An exported user vector has each channel
    multiplied by its weight already. In a channel with a `cosine_temperature`, the item's part has length 1 and the
    user's part has length 1 / temperature, so that their inner product is the cosine divided by the temperature.
    """
    recommender, options, inputs = scorer.system.recommender, scorer.config.evaluation, scorer.inputs
    widths = [vectors.shape[1] for vectors in scorer.encoder.items_by_channel(np.zeros(0, dtype=np.int64))]
    ends = np.cumsum(widths).tolist()
    channels = [
        {
            "name": channel.label,
            "weight": channel.weight,
            "cosine_temperature": channel.cosine_temperature,
            "start": end - width,
            "stop": end,
        }
        for channel, width, end in zip(recommender.channels, widths, ends, strict=True)
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "model": scorer.config.model.name,
        "run": scorer.config.run,
        "checkpoint_step": step,
        "fingerprints": inputs.result_fingerprints,
        "num_items": inputs.dataset.num_items,
        "width": ends[-1],
        "max_length": scorer.config.model.max_length,
        "channels": channels,
        "fusion": _fusion(recommender.fusion),
        "gains": {
            "repeats": float(recommender.repeat_gains().sum()),
            "repeats_by_channel": recommender.repeat_gains().tolist(),
            "cooccurrence": {
                "weight": options.cooccurrence_weight,
                "decay": options.cooccurrence_decay,
                "strongest_entries": options.cooccurrence_cap,
            },
        },
        "mask_history": {"lists": True, "metrics": options.mask_history},
        "rule": _RULE,
    }


def _fusion(fusion: Any) -> dict[str, Any] | None:
    if fusion is None:
        return None
    assert isinstance(fusion, DynamicFusion)
    return {
        "kind": "dynamic",
        "weight": float(fusion.weight.detach()),
        "temperature": fusion.temperature,
        "first_channel_is_ids": fusion.with_ids,
        "rule": (
            "s_m: the inner product in channel m. Over the channels of modalities that the item has (its part is not "
            "all 0): s = sum of softmax(weight * temperature * s_m) * s_m. With M channels of modalities in all and "
            "first_channel_is_ids, the score is (s_ids + M * s) / (M + 1), otherwise it is s."
        ),
    }
