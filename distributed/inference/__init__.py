"""Uses a trained model: ranks of held-out targets, metrics, and recommendations.

- `evaluate.py`, `recommend.py`: the tasks of a finished run. `restore.py`: opening it.
- `scoring.py`: ranks users' targets. Begin with `Scorer.rank`. `ranked_targets.py`: what it returns.
- `summaries.py`: turns ranks into metrics, of all targets and of slices.
- `vectors.py`: the vectors of users and items, whose inner products are scores.
- `score_gains.py`: numbers that are added to the scores of some pairs of a user and an item.

Modules here may import the rest of `distributed`, but not `distributed/training` or `distributed/ray`.
"""
