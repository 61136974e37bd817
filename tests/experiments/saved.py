"""Writes files of invented ranks to run folders, as an evaluation would."""

import json

import numpy as np
import pyarrow as pa

from evaluation.saved_ranks import RankFacts, ranks_path, write_ranks

SETTINGS = {
    "mask_history": False,
    "ties": "pessimistic",
    "cooccurrence_weight": 0.0,
    "cooccurrence_decay": 0.9,
    "cooccurrence_cap": None,
}


def save_ranks(
    run, ranks, *, seed=0, step=20, result="metrics.json", split="test", dataset="d", names=None,
    groups=None, within=None, **settings,
):  # fmt: skip
    """Save the ranks of one target per user, and the result file if it does not exist.

    `groups` has the names of the groups of one grouping, and `within` each target's group and its rank in it.
    """
    run.mkdir(parents=True, exist_ok=True)
    if not (run / result).exists():
        (run / result).write_text(json.dumps({"best_step" if result == "metrics.json" else "checkpoint_step": step}))
    count = len(ranks)
    facts = RankFacts(
        split=split,
        model="sasrec",
        seed=seed,
        checkpoint_step=step,
        settings=SETTINGS | settings,
        fingerprints={"dataset": dataset},
        groups=groups or {},
    )
    write_ranks(
        ranks_path(run / result, split),
        facts,
        users=np.arange(count),
        positions=np.full(count, 4),
        items=np.zeros(count, dtype=np.int64),
        ranks=np.asarray(ranks, dtype=np.int64),
        user_names=pa.array(names or [f"u{user}" for user in range(count)]),
        item_names=pa.array(["i"]),
        within=dict.fromkeys(groups or {}, within),
    )


def some_ranks(seed, hits, count=300):
    """Return ranks, of which about the share `hits` is among the best ten."""
    random = np.random.default_rng(seed)
    return np.where(random.random(count) < hits, random.integers(1, 11, count), 500)
