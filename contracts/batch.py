"""What a rank trains in one step: sequences, their targets, and the items that stand for the catalogue.

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
    """Consecutive sequences of a batch, of similar length, that a tower pads to one shape.

    Attributes:
        count: S_g, how many.
        length: L_g, the longest of them.
        states: Q_g, the most states asked for of one of them. Where it is L_g, every sequence of the group
            is asked for the state after each of its items.
    """

    count: int
    length: int
    states: int


@dataclass(kw_only=True)
class Batch:
    """S sequences, and B targets that are predicted from the states after their last items.

    A training window has a target after each of its items (or after its last few, where an earlier window has
    trained the rest); a prefix row, or a user to be ranked, has one target, after its last item. With Q_s
    states asked for of sequence s, B = sum of Q_s. Sequences lie in the order of their groups; targets in the order
    of the spans that the batch was made of, and `states` links the two.

    Attributes:
        users: int64 [B], user ids.
        history: int64 [P], per group of `groups` the S_g x L_g positions in the plan's order, oldest first,
            right-padded with 0, group after group.
        lengths: int64 [S], >= 1, how many items of a sequence are real.
        num_states: int64 [S], Q_s in 1..length.
        groups: how the S sequences lie in `history`.
        states: int64 [B], which of the sum of S_g * Q_g padded states of all groups belongs to each target; state q of
            a sequence is the one after its item number length - Q_s + q, and q >= Q_s is padding.
        targets: int64 [B], positions in the plan's order.
        positions: int64 [B], 0-based index of the target in the user's whole sequence.
        num_global_targets: targets of this step over all ranks; the loss divides by it.
        candidates: int64 [K], distinct positions of the items that stand for the catalogue in a sampled
            softmax; None: all items with a role are candidates (a full softmax).
        log_weights: float32 [K], log of how often each candidate was drawn over how often it should be.
        mates: int64 [B, Q], the targets of the same sequence as each target, as indices into `targets`, itself as
            padding; given where the batch's targets are candidates and a sequence has several.
    S may be 0 on a rank whose share of the last step is empty.
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
    mates: torch.Tensor | None = None

    def map(self, move: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        kept = ("groups", "num_global_targets")
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in kept}
        moved: dict[str, Any] = {name: None if tensor is None else move(tensor) for name, tensor in tensors.items()}
        return replace(self, **moved)


@dataclass
class Step:
    """What a rank trains at once: a batch, and the plan that its positions refer to (None: the whole catalogue's)."""

    batch: Batch
    plan: ItemPlan | None = None

    def pin_memory(self) -> Step:
        """The same in pinned memory, for a DataLoader."""
        return Step(
            self.batch.map(lambda tensor: tensor.pin_memory()),
            self.plan.map(lambda tensor: tensor.pin_memory()) if self.plan else None,
        )
