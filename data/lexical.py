"""Words as a modality: items that share rare words, of titles, brands and categories, are alike.

TF-IDF over words and pairs of neighbouring words, reduced to its largest singular vectors (latent semantic analysis).
It relates items otherwise than a text encoder does: on Amazon "Scientific" half of an item's five nearest
neighbours differ (docs/results.md).

Legend: N items, d width, V distinct words and pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from configs.errors import InputError

_MOST_ITEMS = 0.5  # what more of the items have than this says nothing of one


def lexical_features(texts: Sequence[str | None], width: int, seed: int = 0) -> np.ndarray:
    """float32 [N, width], a row per item; all-zero, a missing modality, where a text is null or has no known word.

    Words are runs of letters and digits of any script, in lower case, that two items have at least and half of them
    at most. Their counts are weighed 1 + log(count), times the inverse document frequency, and rows have length 1
    before the reduction. Takes 4 N d bytes for the result, and about as much again while it is made.

    Args:
        texts: of the items, in order.
        width: d, below V and below N.
        seed: of the randomised singular value decomposition.

    Raises:
        InputError: too few words or items for such a width.
    """
    known = [text or "" for text in texts]
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2),
        token_pattern=r"(?u)[^\W_]+",
        min_df=2,
        max_df=_MOST_ITEMS,
        sublinear_tf=True,
        dtype=np.float32,
    )
    try:
        weights = vectorizer.fit_transform(known)
    except ValueError:  # no word is left
        raise InputError(
            "--dataset: no two items share a word in their texts; leave the lexical modality out"
        ) from None
    most = min(weights.shape)
    if width >= most:
        raise InputError(
            f"--width {width}: the texts have {weights.shape[1]:,} words and pairs of words that two items share, of "
            f"{weights.shape[0]:,} items; {f'set it below {most:,}' if most > 1 else 'leave the lexical modality out'}"
        )
    reduced: np.ndarray = TruncatedSVD(width, n_iter=7, random_state=seed).fit_transform(weights)
    reduced[np.diff(weights.indptr) == 0] = 0.0
    return np.ascontiguousarray(reduced, dtype=np.float32)
