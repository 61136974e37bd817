"""MDSRec again, slow and obvious: NumPy float64, one user at a time, no padding, no batching, no sparse matrices.

Written from the method's description (steps 1-9, arXiv 2412.08103), not from `model`. SASRec's tower is the same
Transformer, so `Tower` serves it too. Weights come in as plain dicts of arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import erf, logsumexp

Array = np.ndarray[Any, Any]
Weights = dict[str, Array]


def cooccurrence(sequences: list[list[int]], num_items: int) -> Array:
    """Step 1: O_ij = sum over users of 1/|pos_i - pos_j|, symmetric, zero diagonal, rows of unit L2 norm."""
    counts = np.zeros((num_items, num_items))
    for sequence in sequences:
        for p in range(len(sequence)):
            for q in range(len(sequence)):
                if sequence[p] != sequence[q]:
                    counts[sequence[p], sequence[q]] += 1 / abs(p - q)
    norms = np.linalg.norm(counts, axis=1, keepdims=True)
    return np.divide(counts, norms, out=np.zeros_like(counts), where=norms > 0)


def injected(mu: float, relations: Array, rows: Array) -> Array:
    """Step 2: mu O E + E."""
    return mu * relations @ rows + rows


def neighbors(features: Array, missing: Array, num: int) -> list[list[int]]:
    """Step 3: top-H by cosine, self included; a missing item is nobody's neighbour and has only itself."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-30)
    chosen = []
    for item in range(len(features)):
        scores = unit @ unit[item]
        scores[missing] = -np.inf
        best = [int(n) for n in np.argsort(-scores, kind="stable")[:num]]
        chosen.append([item] if missing[item] else best)
    return chosen


def adjacency(chosen: list[list[int]], mean: bool) -> Array:
    """A_m: 1 per neighbour, or one over their number."""
    rows = np.zeros((len(chosen), len(chosen)))
    for item, some in enumerate(chosen):
        for neighbor in some:
            rows[item, neighbor] = 1 / len(some) if mean else 1
    return rows


def center_matrix(clusters: Array, num_centers: int) -> Array:
    """C_m: means over the members of each cluster; -1 belongs to none."""
    members = clusters[None, :] == np.arange(num_centers)[:, None]
    return members / np.maximum(members.sum(1, keepdims=True), 1)


@dataclass
class Layer:
    """One Transformer layer; `weights` has the model's names."""

    weights: Weights
    num_heads: int
    activation: str

    def linear(self, name: str, x: Array) -> Array:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name: str, x: Array) -> Array:
        return layer_norm(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def attend(self, queries: Array, sequence: Array, visible: Array) -> Array:
        """Multi-head attention of queries [Q, d] over a sequence [L, d]; visible [Q, L]."""
        dim = queries.shape[1]
        q, kv = self.linear("query", queries), self.linear("key_value", sequence)
        k, v = kv[:, :dim], kv[:, dim:]
        width = dim // self.num_heads
        heads = []
        for head in range(self.num_heads):
            part = slice(head * width, (head + 1) * width)
            logits = np.where(visible, q[:, part] @ k[:, part].T / np.sqrt(width), -np.inf)
            heads.append(softmax(logits) @ v[:, part])
        return self.linear("output", np.concatenate(heads, axis=1))

    def sigma(self, x: Array) -> Array:
        return np.maximum(x, 0) if self.activation == "relu" else x * (1 + erf(x / np.sqrt(2))) / 2

    def feed_forward(self, x: Array, literal: bool = False) -> Array:
        """sigma(x W1 + b1) W2 + b2; or, as Eq. 15 prints it, sigma((x W1 + b1) W2 + b2)."""
        inner = self.linear("expand", x)
        if literal:
            return self.sigma(self.linear("contract", inner))
        return self.linear("contract", self.sigma(inner))

    def __call__(
        self, queries: Array, sequence: Array, visible: Array, residual: bool = True, literal: bool = False
    ) -> Array:
        attended = self.attend(queries, sequence, visible)
        if not residual:
            return self.feed_forward(attended, literal)
        x = self.norm("attention_norm", queries + attended)
        return self.norm("ffn_norm", x + self.feed_forward(x, literal))


@dataclass
class Tower:
    """Position table, input LayerNorm, layers."""

    positions: Array
    norm: tuple[Array, Array]
    layers: list[Layer]

    def __call__(self, items: Array) -> list[Array]:
        """States [L, d] entering layer 1, layer 2, ..., and leaving the last."""
        length = len(items)
        states = [layer_norm(items + self.positions[:length], *self.norm)]
        causal = np.arange(length)[:, None] >= np.arange(length)[None, :]
        for layer in self.layers:
            states.append(layer(states[-1], states[-1], causal))
        return states


@dataclass
class MDSRecInNumPy:
    """Steps 4-9 for given graphs and weights; `towers` and `center_layers` are per stream (id, *modalities)."""

    cooccurrence: Array
    mu_id: float
    towers: list[Tower]
    rho: list[float]
    tau: float
    adjacency: list[Array] = field(default_factory=list)
    projected: list[Array] | None = None
    missing: list[Array] = field(default_factory=list)
    center_matrices: list[Array] | None = None
    center_layers: list[list[Layer]] = field(default_factory=list)
    center_residual: bool = True
    literal_feed_forward: bool = False

    def item_views(self, table: Array) -> list[Array]:
        """Step 4, or the projected features with the item's own row where they are missing."""
        if self.projected is None:
            return [rows @ table for rows in self.adjacency]
        return [
            np.where(missing[:, None], table, view) for view, missing in zip(self.projected, self.missing, strict=True)
        ]

    def user(self, table: Array, history: list[int], noise: list[Array]) -> list[Array]:
        """Steps 5-8 for one history of real items: [e_s, e~_1, ..., e~_M]; `noise` is log d - log(1-d), [k] each."""
        behaviour = injected(self.mu_id, self.cooccurrence, table)
        views = self.item_views(table)
        e_id = self.towers[0](behaviour[history])[-1][-1]
        fused, personal = e_id.copy(), []
        for m, view in enumerate(views):
            states = self.towers[1 + m](view[history])
            e_m = states[-1][-1]
            fused += self.rho[m] * e_m
            personal.append(e_m if self.center_matrices is None else self.gate(m, view, states, noise[m]))
        return [fused, *personal]

    def gate(self, m: int, view: Array, states: list[Array], noise: Array) -> Array:
        """Steps 6-8 of one modality."""
        assert self.center_matrices is not None
        centers = self.center_matrices[m] @ view
        everything = np.ones((len(centers), len(states[0])), dtype=bool)
        for layer, entering in zip(self.center_layers[m], states[:-1], strict=True):
            centers = layer(centers, entering, everything, self.center_residual, self.literal_feed_forward)
        e_m = states[-1][-1]
        gamma = softmax(((noise + centers @ e_m) / self.tau)[None])[0]
        return e_m + gamma @ centers

    def channel_scores(self, table: Array, histories: list[list[int]], noise: Array) -> list[Array]:
        """Per channel [B, N], unweighted; noise [M, B, k]."""
        items = [table, *self.item_views(table)]
        users = [self.user(table, history, list(noise[:, b])) for b, history in enumerate(histories)]
        return [np.stack([user[c] for user in users]) @ item.T for c, item in enumerate(items)]

    def scores(self, table: Array, histories: list[list[int]], noise: Array) -> Array:
        """Step 9: y = e_s . E_id + sum_m rho_m e~_m . Ehat_m, [B, N]."""
        channels = self.channel_scores(table, histories, noise)
        return sum((rho * y for rho, y in zip(self.rho, channels[1:], strict=True)), channels[0])

    def loss(self, table: Array, histories: list[list[int]], targets: list[int], noise: Array) -> float:
        """One cross entropy per channel, weighted 1 and rho_m, averaged over the targets."""
        channels = self.channel_scores(table, histories, noise)
        rows = np.arange(len(targets))
        entropies = [(logsumexp(y, axis=1) - y[rows, targets]).mean() for y in channels]
        return float(entropies[0] + np.dot(self.rho, entropies[1:]))


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * weight + bias


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
