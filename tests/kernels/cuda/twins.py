"""Slow twins of the CUDA kernels: one entry at a time, written from the kernels' contracts alone."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np


def offered(scores, row_threshold, first_row_id, column_threshold, first_column_id):
    """(row entries, column entries) of a tile: a list of (id, score) for each row and for each column."""
    rows = [[] for _ in row_threshold]
    columns = [[] for _ in range(scores.shape[1])]
    for r in range(scores.shape[0]):
        for c in range(scores.shape[1]):
            if first_row_id + r == first_column_id + c:
                continue
            if scores[r, c] >= row_threshold[r]:
                rows[r].append((first_column_id + c, float(scores[r, c])))
            if column_threshold is not None and scores[r, c] >= column_threshold[c]:
                columns[c].append((first_row_id + r, float(scores[r, c])))
    return rows, columns


def below(score, margin):
    """score - margin as a float32, rounded down."""
    if not np.isfinite(score):
        return np.float32(score)
    exact = Fraction(float(score)) - Fraction(float(margin))
    result = np.nextafter(np.float32(float(exact)), np.float32(np.inf))
    while Fraction(float(result)) > exact:
        result = np.nextafter(result, np.float32(-np.inf))
    return result


def seeded(values, itself, threshold, margin, num_neighbors, num_groups):
    """The threshold of one row after seeding: place k of `values` is in group k mod G; `itself` is left out."""
    groups = np.full(num_groups, -np.inf, dtype=np.float32)
    for k, value in enumerate(values):
        if k != itself:
            groups[k % num_groups] = max(groups[k % num_groups], value)
    return max(threshold, below(np.sort(groups)[-num_neighbors], margin))


def compacted(threshold, count, ids, scores, margin, num_neighbors, trigger):
    """One list's threshold, its kept (id, score) entries, and whether it overflowed."""
    held = min(count, len(ids))
    entries = [(int(ids[i]), float(scores[i])) for i in range(held)]
    if count < trigger:
        return threshold, entries, False
    if held >= num_neighbors:
        threshold = max(threshold, below(np.sort(scores[:held])[-num_neighbors], margin))
    return threshold, [entry for entry in entries if entry[1] >= threshold], count > len(ids)


def dot(left, right):
    """The dot product of `exact_dots`: 32 lanes, then a tree."""
    lanes = [0.0] * 32
    for k in range(len(left)):
        lanes[k % 32] += float(left[k]) * float(right[k])
    width = 16
    while width:
        for lane in range(width):
            lanes[lane] += lanes[lane + width]
        width //= 2
    return lanes[0]


def unit_row(row, square):
    """A float16 row of length sqrt(d) and the bound on its rounding, as unit_rows.cu adds it up."""
    if square == 0:
        return np.zeros(len(row), dtype=np.float16), np.float32(0)
    exact = row.astype(np.float64) * np.sqrt(len(row) / square)
    units = exact.astype(np.float16)
    off = exact - units.astype(np.float64)
    lanes = np.zeros(32)
    for k in range(len(row)):
        lanes[k % 32] += off[k] * off[k]
    for width in (16, 8, 4, 2, 1):
        lanes[:width] += lanes[width : 2 * width]
    bound = np.sqrt(lanes[0] / len(row)) * (1 + 2.0**-30) + 2.0**-36
    residual = np.float32(bound)
    return units, residual if residual >= bound else np.nextafter(residual, np.float32(np.inf))


def injected_row(columns, weights, features, own, mu):
    total = np.zeros(len(own))
    for column, weight in zip(columns, weights, strict=True):
        total = total + np.float64(weight) * features[column].astype(np.float64)
    return (mu * total + own.astype(np.float64)).astype(np.float32)


def pair_entries(items, offsets, max_gap, centers):
    """Sorted (row item, column item, gap) of all pairs whose row is at a position in [first, last)."""
    found = []
    for begin, end in itertools.pairwise(offsets):
        for p in range(begin, end):
            for q in range(begin, end):
                if 0 < abs(p - q) <= max_gap and items[p] != items[q] and centers[0] <= p < centers[1]:
                    found.append((int(items[p]), int(items[q]), int(abs(p - q))))
    return sorted(found)
