"""TF-IDF + SVD: vectors of texts from the words in them alone. Needs no model, and no package but SciPy.

1. Every part is counted: in how many texts each word occurs. Words are hashed to 2^20 numbers, so counts stay small for
   any number of texts; two rare words may share a number.
2. Weights of a text's words: (1 + log(occurrences)) * (1 + log((1 + texts) / (1 + texts with the word))), divided by
   their norm, as in scikit-learn with sublinear_tf and smooth_idf.
3. A truncated SVD of evenly spaced texts gives the projection to `width` values.
4. Every part is projected.

D texts, V kept words, W width.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse
import scipy.sparse.linalg
from safetensors.numpy import load_file, save_file

from contracts.errors import InputError
from data.encoding.request import EncoderSpec
from data.encoding.text_models import NO_TEXT
from storage.durable_files import replacing
from storage.fingerprints import file_digest

NAME = "tfidf"
_NUM_HASHES = 1 << 20
_MOST_WORDS = 1 << 16
_LEAST_TEXTS = 2  # a word of a single text tells nothing about others
# Weights of a text have norm 1. A shorter projection than this is what rounding left over; float16 keeps all others.
_LEAST_NORM = 1e-5
NO_SHARED_WORD = "no word that another text has too"
_NO_LETTERS_OR_DIGITS = r"[^\p{L}\p{N}]+"


@dataclass(frozen=True, kw_only=True)
class PartCounts:
    """What is counted in a part.

    Attributes:
        num_values: all texts.
        num_texts: texts with a word.
        hashes: int64, ascending: the hashes of its words.
        counts: int64, the number of texts with each.
        sample: texts for the SVD.
    """

    num_values: int
    num_texts: int
    hashes: np.ndarray
    counts: np.ndarray
    sample: list[str]


def word_counts(texts: Sequence[str]) -> scipy.sparse.csr_matrix:
    """Return how often each text has each hash: float64 [texts, 2^20]."""
    words = pc.split_pattern_regex(pc.utf8_lower(pa.array(texts, pa.large_string())), _NO_LETTERS_OR_DIGITS)
    owners, flat = pc.list_parent_indices(words), words.flatten()
    is_word = pc.greater(pc.utf8_length(flat), 0)
    owners, coded = owners.filter(is_word).to_numpy(), flat.filter(is_word).dictionary_encode()
    # crc32 gives the same numbers in every process, unlike Python's own hash.
    hashes = np.array([zlib.crc32(word.encode()) % _NUM_HASHES for word in coded.dictionary.to_pylist()], np.int64)
    columns = hashes[coded.indices.to_numpy()] if len(hashes) else np.zeros(0, np.int64)
    shape = (len(texts), _NUM_HASHES)
    return scipy.sparse.coo_matrix((np.ones(len(columns)), (owners, columns)), shape).tocsr()


def count_part(texts: Sequence[str], sampled: Sequence[int]) -> PartCounts:
    """Count the texts of a part; `sampled` are the places of those that are returned for the SVD."""
    matrix = word_counts(texts)
    hashes, counts = np.unique(matrix.indices, return_counts=True)
    num_texts = int((np.diff(matrix.indptr) > 0).sum())
    return PartCounts(
        num_values=len(texts),
        num_texts=num_texts,
        hashes=hashes.astype(np.int64),
        counts=counts,
        sample=[texts[index] for index in sampled],
    )


def fit(parts: Iterable[PartCounts], width: int, file: Path) -> None:
    """Choose the words, compute the projection and write both. Parts come in their order.

    Raises:
        InputError: the texts have too few words for this width.
    """
    frequency, num_values, num_texts, sample = np.zeros(_NUM_HASHES, np.int64), 0, 0, []
    for part in parts:
        frequency[part.hashes] += part.counts
        num_values += part.num_values
        num_texts += part.num_texts
        sample += part.sample
    if not num_texts:
        raise InputError(
            f"--encoder {NAME}: all {num_values:,} texts are empty, or have no letter or digit; check --text-column"
        )
    known = np.flatnonzero(frequency >= (_LEAST_TEXTS if num_texts > _LEAST_TEXTS else 1))
    kept = np.sort(known[np.argsort(-frequency[known], kind="stable")[:_MOST_WORDS]])
    columns = np.full(_NUM_HASHES, -1, np.int32)
    columns[kept] = np.arange(len(kept), dtype=np.int32)
    idf = (1 + np.log((1 + num_texts) / (1 + frequency[kept]))).astype(np.float32)
    if len(kept) < 2:
        raise InputError(
            f"--encoder {NAME}: no two of {num_texts:,} texts have a word in common, so there is nothing to learn from "
            "them; check --text-column"
        )
    if min(len(kept), len(sample)) <= width:
        raise InputError(
            f"--width {width}: {num_texts:,} texts have {len(kept):,} words that occur in several of them, and both "
            "numbers must exceed the width; lower it"
        )
    weights = _weights(word_counts(sample), columns, idf).astype(np.float64)
    start = np.random.default_rng(0).standard_normal(min(weights.shape))
    _, strengths, rows = scipy.sparse.linalg.svds(weights, k=width, v0=start)
    rows = rows[np.argsort(-strengths, kind="stable")]
    # A singular vector's sign is arbitrary; its largest value is made positive.
    largest = rows[np.arange(width), np.abs(rows).argmax(axis=1)]
    components = np.ascontiguousarray((rows * np.sign(largest)[:, None]).T.astype(np.float32))
    with replacing(file, one_writer=True) as temporary:
        save_file({"columns": columns, "idf": idf, "components": components}, temporary)


def _weights(counts: scipy.sparse.csr_matrix, columns: np.ndarray, idf: np.ndarray) -> scipy.sparse.csr_matrix:
    """Return the weights of kept words, float32 [texts, V], each row with norm 1 unless it is empty."""
    places = counts.tocoo()
    is_kept = columns[places.col] >= 0
    rows, kept = places.row[is_kept], columns[places.col[is_kept]]
    values = ((1 + np.log(places.data[is_kept])) * idf[kept]).astype(np.float32)
    norms = np.sqrt(np.bincount(rows, weights=values.astype(np.float64) ** 2, minlength=counts.shape[0]))
    values /= norms[rows].astype(np.float32)
    return scipy.sparse.coo_matrix((values, (rows, kept)), (counts.shape[0], len(idf))).tocsr()


class TfIdf:
    """TF-IDF and the projection that `fit` wrote (an `Encoder` of texts).

    Attributes:
        width: values of a vector, W.
        facts: what the manifest says about the encoder.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        """Read the file that `fit` wrote."""
        assert spec.fitted is not None
        found = load_file(spec.fitted)
        self._columns, self._idf, self._components = found["columns"], found["idf"], found["components"]
        self._normalize = bool(spec.normalize)
        self.width = int(self._components.shape[1])
        self.facts: Mapping[str, Any] = {
            "name": NAME,
            "revision": file_digest(Path(spec.fitted)),
            "modality": "text",
            "pooling": "sum of words",
            "normalized": self._normalize,
            "preprocessing": {"words": "lower case, letters and digits", "prefix": ""},
            "width": self.width,
        }

    def encode(self, values: Sequence[Any]) -> tuple[np.ndarray, list[str]]:
        """Return float32 [n, W], and why a text has no vector; see `Encoder`."""
        texts = [str(value or "").strip() for value in values]
        weights = _weights(word_counts(texts), self._columns, self._idf)
        vectors = np.asarray(weights @ self._components, np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        is_noise = norms[:, 0] < _LEAST_NORM
        vectors[is_noise] = 0
        if self._normalize:
            vectors /= np.where(is_noise[:, None], 1, norms)
        has_words = np.diff(weights.indptr) > 0
        unlike = f"only words that a width of {self.width:,} leaves out"
        reasons = [
            NO_TEXT if not text else NO_SHARED_WORD if not has else unlike if noise else ""
            for text, has, noise in zip(texts, has_words, is_noise, strict=True)
        ]
        return vectors, reasons
