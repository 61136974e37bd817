"""TF-IDF + SVD: the weights of scikit-learn, vectors that keep similar texts together, the same for any parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import InputError
from data.encoding import tfidf
from data.encoding.request import EncoderSpec

WORDS = ["drill", "saw", "glue", "tape", "cat", "dog", "fish", "bird", "red", "blue"]


def texts(count: int = 300, seed: int = 0) -> list[str]:
    """Texts of tools and of animals, which share only colours."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        kind = WORDS[:4] if number % 2 else WORDS[4:8]
        found.append(" ".join([*random.choice(kind, 4), *random.choice(WORDS[8:], 1)]).title() + "!")
    return found


def fitted(path: Path, values: list[str], part: int, width: int = 4, most: int = 10**6) -> tfidf.TfIdf:
    counts = []
    for start in range(0, len(values), part):
        own = values[start : start + part]
        counts.append(tfidf.count_part(own, [i for i in range(len(own)) if start + i < most]))
    tfidf.fit(counts, width, path / f"{part}.safetensors")
    return tfidf.TfIdf(encoder_spec(path, part))


def encoder_spec(path: Path, part: int) -> EncoderSpec:
    return EncoderSpec(name="tfidf", modality="text", fitted=str(path / f"{part}.safetensors"))


def test_parts_do_not_change_what_is_learned(tmp_path: Path) -> None:
    one, many = (fitted(tmp_path, texts(), part) for part in (1000, 7))
    assert one.facts == many.facts
    np.testing.assert_array_equal(one.encode(texts())[0], many.encode(texts())[0])


def test_vectors_of_a_text_do_not_depend_on_others(tmp_path: Path) -> None:
    encoder = fitted(tmp_path, texts(), 50)
    whole = encoder.encode(texts())[0][::20]
    single = np.concatenate([encoder.encode([text])[0] for text in texts()[::20]])
    np.testing.assert_array_equal(whole, single)


def test_weights_and_projection_are_those_of_scikit_learn(tmp_path: Path) -> None:
    sklearn_text = pytest.importorskip("sklearn.feature_extraction.text", reason="scikit-learn is not installed")
    values = texts()
    encoder = fitted(tmp_path, values, 64)
    weights = sklearn_text.TfidfVectorizer(sublinear_tf=True).fit_transform(values).toarray()
    assert weights.shape[1] == len(WORDS)
    ours = tfidf._weights(tfidf.word_counts(values), encoder._columns, encoder._idf).toarray()
    np.testing.assert_allclose(np.sort(ours, axis=1), np.sort(weights, axis=1), atol=1e-6)
    # The projection is that of the first right singular vectors, so products of vectors are the best of this rank.
    u, s, v = np.linalg.svd(weights, full_matrices=False)
    best = (u[:, :4] * s[:4]) @ v[:4]
    vectors = encoder.encode(values)[0]
    np.testing.assert_allclose(vectors @ vectors.T, best @ best.T, atol=1e-4)


def test_texts_of_one_kind_are_alike(tmp_path: Path) -> None:
    vectors = fitted(tmp_path, texts(), 64).encode(texts(seed=1))[0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    assert cosines[::2, ::2].mean() > cosines[::2, 1::2].mean() + 0.5


def test_texts_without_a_known_word_say_so(tmp_path: Path) -> None:
    encoder = fitted(tmp_path, texts(), 64)
    vectors, reasons = encoder.encode(["", None, "?!", "zebra", "a DRILL"])
    assert reasons == ["no text", "no text", *["no word that another text has too"] * 2, ""]
    assert not vectors[:4].any()
    assert vectors[4].any()


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_rounding_leaves_over_is_no_vector(tmp_path: Path, normalize: bool, dtype: type) -> None:
    """Two groups of texts share no word, and the smaller one is outside of the two strongest directions."""
    values = [*texts(60), *["piano violin", "piano cello", "violin cello"] * 2]
    encoder = fitted(tmp_path, values, 64, width=2)
    spec = replace(encoder_spec(tmp_path, 64), normalize=normalize)
    vectors, reasons = tfidf.TfIdf(spec).encode(values)
    assert reasons == [""] * 60 + ["only words that a width of 2 leaves out"] * 6
    assert vectors.astype(dtype).any(axis=1).tolist() == [not reason for reason in reasons]
    raw = tfidf._weights(tfidf.word_counts(values), encoder._columns, encoder._idf) @ encoder._components
    assert 0 < np.linalg.norm(raw[60:], axis=1).max() < 1e-6  # noise


def test_words_of_other_scripts_are_words() -> None:
    matrix = tfidf.word_counts(["ÄPFEL äpfel 苹果 1000", "—"])
    assert sorted(matrix.data.tolist()) == [1, 1, 2]
    assert matrix[1].nnz == 0


def test_texts_that_are_all_empty_are_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="all 3 texts are empty, or have no letter or digit"):
        fitted(tmp_path, ["", "", "?!"], 2)


def test_too_few_words_for_a_width_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--width 10: 300 texts have 10 words"):
        fitted(tmp_path, texts(), 64, width=10)
