"""How MDSRec's towers and centres become user vectors (Eq. 20 is the gate).

Shapes: B users, k centres, d width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def fused_state(id_state_Bd: Tensor, modal_states: Iterable[tuple[float, Tensor]]) -> Tensor:
    """e_s = sum_m rho_m e_m + e_id, all at the last position; `modal_states` are pairs (rho_m, e_m)."""
    return id_state_Bd + sum((rho * state for rho, state in modal_states), torch.zeros_like(id_state_Bd))


def gated_centers(state_Bd: Tensor, centers_Bkd: Tensor, tau: float, noisy: bool) -> Tensor:
    """e~_m = e_m + Gamma E_c, Gamma = softmax((log delta - log(1 - delta) + e_m E_c^T) / tau) over k.

    Args:
        state_Bd: e_m at the last position.
        centers_Bkd: E_c^m.
        tau: temperature.
        noisy: draw delta ~ U(0, 1) per user and centre; else leave the two logarithms out (delta = 1/2).
    """
    logits_Bk = torch.bmm(centers_Bkd, state_Bd.unsqueeze(2)).squeeze(2)
    if noisy:
        delta = torch.rand(logits_Bk.shape, device=logits_Bk.device, dtype=logits_Bk.dtype)
        logits_Bk = logits_Bk + torch.logit(delta, eps=1e-6)  # rand may return exactly 0
    gamma_Bk = torch.softmax(logits_Bk / tau, dim=1)
    return state_Bd + torch.bmm(gamma_Bk.unsqueeze(1), centers_Bkd).squeeze(1)
