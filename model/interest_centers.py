"""Interest-centralised attention (MDSRec, around Eq. 15): each user's view of the catalogue's interest centres.

Shapes: B users, L positions, k centres, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from model.sequence_encoder import KeysValues, TransformerLayer


def personal_centers(
    centers_kd: Tensor,
    layers: Iterable[TransformerLayer],
    keys_values: Sequence[KeysValues],
    visible: Tensor,
    rate: float,
    residual: bool,
) -> Tensor:
    """E_c^m: the centres after attending, layer by layer, to each user's sequence; [B, k, d].

    At layer l the queries are the centre states and the keys and values those of the sequence states
    *entering* layer l. Layer 1 has the same queries for every user and projects them once.

    Args:
        centers_kd: [k, d], Ehat_c^m = C_m Ehat_m.
        layers: the tower's own layers, or the centres' own.
        keys_values: per layer, made by that layer from the states entering it.
        visible: bool [B, 1, 1, L], True at real positions.
        rate: dropout rate inside this path.
        residual: residuals and LayerNorms as in the tower; False is the literal Eq. 15, where the
            attention's output goes straight into the feed-forward.
    """
    states = centers_kd.unsqueeze(0)
    for layer, pair in zip(layers, keys_values, strict=True):
        states = layer(states, pair, visible, rate, residual)
    return states
