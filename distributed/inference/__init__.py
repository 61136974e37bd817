"""What a trained model is used for: ranks of held-out items, metrics, and recommendations.

`encoding.py` has the tasks `evaluate` and `recommend`. They use `scoring.Scorer`, which multiplies the vectors of
`vectors.py` and adds the gains of `score_gains.py`. Imports no training code and not Ray. Begin with
`scoring.Scorer.rank`.
"""
