"""The batch of one training step on one rank: sequences, their targets, and the candidates of a sampled softmax.

Shapes: S sequences of a batch, L history positions, B targets, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from contracts.item_plan import ItemPlan

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SequenceGroup:
    """Consecutive sequences of a batch that have similar lengths; a tower pads them to one shape.

    Attributes:
        count: S_g, the number of sequences.
        length: L_g, the length of the longest sequence.
        states: Q_g, the number of states that are computed of each sequence, at least as many as are requested. If it
            equals L_g, they are those after each item.
    """

    count: int
    length: int
    states: int


@dataclass(kw_only=True)
class Batch:
    """S sequences and B targets; each target is predicted from the state after the item before it.

    A training window has a target after each of its items, or only after its last items if an earlier window has
    trained the others. A prefix row has one target, after its last item; so has a user to be ranked. If Q_s states
    are requested of sequence s, then B is the sum of Q_s. Sequences are in the order of their groups. Targets are in
    the order of the spans that the batch was made from. `states` links targets to sequences.

    In a batch with masks, the requested states are those at the masked places, and each target is predicted from the
    state at its own place.

    S may be 0, on a rank whose share of the last step is empty.

    Attributes:
        users: int64 [B], user ids.
        history: int64 [P], for each group of `groups` its S_g x L_g items, as positions in the plan's order. The items
            of a sequence are oldest first, right-padded with 0. A masked item is 0 too.
        lengths: int64 [S], >= 1, number of items of each sequence without padding.
        num_states: int64 [S], Q_s in 1..length.
        groups: how `history` is divided into groups.
        states: int64 [B], index of each target's state among the S_g * Q_g padded states of all groups. State q of a
            sequence is the one after its item number length - Q_s + q, or with masks the one at its masked place number
            q; states with q >= Q_s are padding. If Q_g equals L_g, and there are no masks, state q is the one after
            item q.
        targets: int64 [B], positions in the plan's order.
        positions: int64 [B], 0-based index of the target in the user's whole sequence.
        num_global_targets: number of targets of this step over all ranks; the loss is divided by it.
        candidates: int64 [K], distinct positions of the items that stand for the catalogue in a sampled
            softmax; None: all items with a role are candidates (a full softmax).
        log_weights: float32 [K], log of (number of times that a candidate was drawn / expected number).
        same_sequence: int64 [B, Q], for each target the targets of the same sequence, as indices into `targets`; the
            target's own index is the padding. None if targets are not candidates, or no sequence has several.
        masked: bool [P], which places of `history` a mask takes; None: there are no masks.
    """

    users: torch.Tensor
    history: torch.Tensor
    lengths: torch.Tensor
    num_states: torch.Tensor
    groups: tuple[SequenceGroup, ...]
    states: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor
    num_global_targets: int
    candidates: torch.Tensor | None = None
    log_weights: torch.Tensor | None = None
    same_sequence: torch.Tensor | None = None
    masked: torch.Tensor | None = None

    def map(self, move: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """Return the same batch with every tensor passed through `move`, such as to a device."""
        kept = ("groups", "num_global_targets")
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in kept}
        moved: dict[str, Any] = {name: None if tensor is None else move(tensor) for name, tensor in tensors.items()}
        return replace(self, **moved)


@dataclass
class Step:
    """A batch, and the item plan that its positions refer to; None stands for the plan of the whole catalogue."""

    batch: Batch
    plan: ItemPlan | None = None

    def pin_memory(self) -> Step:
        """Return the same step in pinned memory; a DataLoader calls this."""
        return Step(
            self.batch.map(lambda tensor: tensor.pin_memory()),
            self.plan.map(lambda tensor: tensor.pin_memory()) if self.plan else None,
        )
