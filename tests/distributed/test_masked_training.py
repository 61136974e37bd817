"""What a config says about masks reaches the rows of training and the candidates of a sampled softmax."""

from __future__ import annotations

import numpy as np
import pytest

from configs.loading import load_config
from configs.schema import Config
from data.sampling.masks import Masks
from distributed.inputs import Inputs
from distributed.training.trainer import candidate_sampler, training_spans
from tests.distributed.toy import toy_data


def config_of(*more: str) -> Config:
    return load_config(None, ["model.name=bert4rec", "model.max_length=6", "seed=5", *more])


@pytest.mark.parametrize("rows", ["prefixes", "windows"])
def test_rows_and_masks_are_those_of_the_config(rows: str) -> None:
    data = toy_data()
    share = "model.bert4rec.last_share=0.25"
    spans = training_spans(config_of(f"model.bert4rec.rows={rows}", "model.bert4rec.mask_ratio=0.4", share), data)
    assert spans.unit == rows
    made = spans.locate(np.arange(len(spans)), 3)
    masks = Masks(ratio=0.4, last_share=0.25, seed=5)
    assert made.masked is not None
    assert made.masked.tolist() == masks.draw(np.arange(len(spans)), made.lengths, 3).tolist()
    unmasked = training_spans(config_of("training.unit=prefixes"), data)
    assert unmasked.locate(np.arange(2)).masked is None


def test_items_that_only_begin_sequences_are_drawn_by_popularity_too() -> None:
    """With masks they are targets; otherwise they never are."""
    data = toy_data()
    ends = np.minimum(data.offsets[:-1] + data.train_end, data.offsets[1:])
    later = np.concatenate([data.items[start + 1 : end] for start, end in zip(data.offsets[:-1], ends, strict=True)])
    only_first = np.setdiff1d(data.items[data.offsets[:-1]][data.train_end > 0], later)
    assert len(only_first)
    draws = ("training.negatives.draws=2000", "training.negatives.in_batch=false")
    found = {}
    for unit in ("masks", "prefixes"):
        config = config_of(*draws, "training.negatives.popularity_share=1.0", f"training.unit={unit}")
        sampler = candidate_sampler(config, Inputs(data, None))  # type: ignore[arg-type]
        assert sampler is not None
        found[unit] = np.intersect1d(sampler.sample(0, 0, np.empty(0, dtype=np.int64))[0], only_first)
    assert len(found["masks"]) == len(only_first)
    assert len(found["prefixes"]) == 0
