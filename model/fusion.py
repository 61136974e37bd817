"""How MDSRec's towers and centres become user vectors (Eq. 20 is the gate).

Shapes: S sequences, Q states of each, k centres, d width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def fused_state(id_state: Tensor, modal_states: Iterable[tuple[float, Tensor]]) -> Tensor:
    """e_s = sum_m rho_m e_m + e_id, of any one shape; `modal_states` are pairs (rho_m, e_m)."""
    return id_state + sum((rho * state for rho, state in modal_states), torch.zeros_like(id_state))


def gated_centers(state_SQd: Tensor, centers_SQkd: Tensor, tau: float, noisy: bool) -> Tensor:
    """e~_m = e_m + Gamma E_c, Gamma = softmax((log delta - log(1 - delta) + e_m E_c^T) / tau) over k; [S, Q, d].

    Args:
        state_SQd: e_m.
        centers_SQkd: E_c^m.
        tau: temperature.
        noisy: draw delta ~ U(0, 1) per state and centre; else leave the two logarithms out (delta = 1/2).
    """
    logits_SQk = (centers_SQkd @ state_SQd.unsqueeze(3)).squeeze(3)
    if noisy:
        delta = torch.rand(logits_SQk.shape, device=logits_SQk.device, dtype=logits_SQk.dtype)
        logits_SQk = logits_SQk + torch.logit(delta, eps=1e-6)  # rand may return exactly 0
    gamma_SQk = torch.softmax(logits_SQk / tau, dim=2)
    return state_SQd + (gamma_SQk.unsqueeze(2) @ centers_SQkd).squeeze(2)
