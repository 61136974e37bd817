"""How MDSRec's towers and centres become user vectors (MDSRec Eq. 17-19).

Shapes: n states, k centres, d width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def fused_state(id_state: Tensor, modal_states: Iterable[tuple[float, Tensor]]) -> Tensor:
    """Eq. 17, 18: e_s = sum_m rho_m e_m + e_id, of any one shape; `modal_states` are pairs (rho_m, e_m)."""
    return id_state + sum((rho * state for rho, state in modal_states), torch.zeros_like(id_state))


def gated_centers(state_nd: Tensor, centers_nkd: Tensor, tau: float, noisy: bool) -> Tensor:
    """Eq. 19: e~_m = e_m + Gamma E_c, Gamma = softmax((log delta - log(1 - delta) + e_m E_c^T) / tau); [n, d].

    The softmax is over the k centres.

    Args:
        state_nd: e_m.
        centers_nkd: E_c^m.
        tau: temperature.
        noisy: draw delta ~ U(0, 1) per state and centre; else leave the two logarithms out (delta = 1/2).
    """
    logits_nk = (centers_nkd @ state_nd.unsqueeze(2)).squeeze(2)
    if noisy:
        delta = torch.rand(logits_nk.shape, device=logits_nk.device, dtype=logits_nk.dtype)
        logits_nk = logits_nk + torch.logit(delta, eps=1e-6)  # rand may return exactly 0
    gamma_nk = torch.softmax(logits_nk / tau, dim=1)
    return state_nd + (gamma_nk.unsqueeze(1) @ centers_nkd).squeeze(1)
