"""Combines the states of MDSRec's towers and centres into user vectors (MDSRec Eq. 17-19).

Shapes: n states, k centres, d width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def fused_state(id_state: Tensor, modal_states: Iterable[tuple[float, Tensor]]) -> Tensor:
    """Return e_s = sum_m rho_m e_m + e_id (Eq. 17, 18).

    Args:
        id_state: e_id, of any shape.
        modal_states: pairs (rho_m, e_m); each e_m has the shape of e_id.
    """
    return id_state + sum((rho * state for rho, state in modal_states), torch.zeros_like(id_state))


def gated_centers(state_nd: Tensor, centers_nkd: Tensor, tau: float, noisy: bool) -> Tensor:
    """Return e~_m = e_m + Gamma E_c, Gamma = softmax((log delta - log(1 - delta) + e_m E_c^T) / tau) (Eq. 19).

    The softmax is over the k centres. The result is [n, d].

    Args:
        state_nd: e_m.
        centers_nkd: E_c^m.
        tau: temperature.
        noisy: whether delta ~ U(0, 1) is drawn for each state and centre; otherwise the logarithms are left out, which
            equals delta = 1/2.
    """
    logits_nk = (centers_nkd @ state_nd.unsqueeze(2)).squeeze(2)
    if noisy:
        # At least float32, also under autocast: torch draws 0.2% of bfloat16 numbers as exactly 0.
        dtype = torch.promote_types(logits_nk.dtype, torch.float32)
        delta = torch.rand(logits_nk.shape, device=logits_nk.device, dtype=dtype)
        logits_nk = logits_nk.to(dtype) + torch.logit(delta, eps=1e-6)  # rand may return exactly 0
    gamma_nk = torch.softmax(logits_nk / tau, dim=1)
    return state_nd + (gamma_nk.unsqueeze(1) @ centers_nkd).squeeze(1)
