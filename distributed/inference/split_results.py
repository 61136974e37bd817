"""Ranks valid and test at the end of a training or an evaluation, and saves the rank of every target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contracts.errors import InputError
from distributed.checkpoints.run_storage import RunStorage
from distributed.inference.ranked_targets import Ranked
from distributed.inference.scoring import SPLITS, Scorer
from distributed.inference.summaries import summarise
from evaluation.item_groups import groupings_of
from evaluation.result_settings import score_settings
from evaluation.saved_ranks import RankFacts, ranks_path, write_ranks


def rank_splits(scorer: Scorer, checkpoint_step: int | None, result: Path | None) -> dict[str, dict[str, Any]]:
    """Rank valid and test, and return the summary of each. A collective.

    Rank 0 also writes the ranks of each split to `ranks_path(result, split)`. With `evaluation.save_ranks=false` it
    removes this file instead, because its ranks would be those of an earlier result.

    Args:
        scorer: holds the weights to rank with.
        checkpoint_step: the step of these weights; None for a model that is not trained.
        result: the result file that the caller writes afterwards; rank 0 alone needs it.
    """
    summaries: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        groupings = groupings_of(scorer.inputs.dataset, split)
        ranked = scorer.rank(split, groupings)
        if scorer.world.is_first:
            assert result is not None
            facts = RankFacts(
                split=split,
                model=scorer.config.model.name,
                seed=scorer.config.seed,
                checkpoint_step=checkpoint_step,
                settings=score_settings(scorer.config.evaluation),
                fingerprints=scorer.inputs.result_fingerprints,
                groups={grouping.name: [group.name for group in grouping.groups] for grouping in groupings},
            )
            _save(ranked, facts, scorer, ranks_path(result, split))
        summaries[split] = summarise(ranked, scorer.inputs, scorer.config)
    return summaries


def upload_ranks(storage: RunStorage, result: Path) -> None:
    """Upload the ranks that belong to a result file of a run at a URI. Call this before the result is uploaded.

    Ranks that were not saved are deleted at the URI too.
    """
    for split in SPLITS:
        name = ranks_path(result, split).name
        if (storage.local / name).exists():
            storage.push([name])
        else:
            storage.discard(name)


def _save(ranked: Ranked, facts: RankFacts, scorer: Scorer, path: Path) -> None:
    if not scorer.config.evaluation.save_ranks:
        path.unlink(missing_ok=True)
        return
    try:
        write_ranks(
            path,
            facts,
            users=ranked.users,
            positions=ranked.positions,
            items=ranked.items,
            ranks=ranked.ranks,
            within={own.grouping.name: (own.labels, own.ranks) for own in ranked.within},
            user_names=scorer.inputs.dataset.user_source_ids(),
            item_names=scorer.inputs.dataset.item_source_ids(),
        )
    except OSError as error:
        raise InputError(
            f"{path}: could not be written ({error.strerror or error}); free space or correct the permissions and "
            "repeat the command, or set evaluation.save_ranks=false"
        ) from None
