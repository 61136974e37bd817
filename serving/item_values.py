"""Finds out what a system's users read of the items and of its weights, so that an export holds nothing else.

Shapes: N items of the catalogue, k centres, d width of an ID row.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from contracts.batch import Batch, SequenceGroup
from model.protocol import ItemRows
from model.recommender import Recommender

# The name of a tensor [N, ...]: a field of `ItemRows`, then the name in that field, then the number in its list.
Key = tuple[str, ...]


def last_states(items_BL: Tensor, lengths_B: Tensor) -> Batch:
    """Return the batch that requests the state after the last item of each sequence, as ranking does.

    Args:
        items_BL: int64, positions of the items in the plan's order, oldest first, right-padded with any position.
        lengths_B: int64, 1..L, numbers of items without padding.
    """
    count, length = items_BL.shape
    return Batch(
        users=torch.zeros_like(lengths_B),
        history=items_BL.flatten(),
        lengths=lengths_B,
        num_states=torch.ones_like(lengths_B),
        groups=(SequenceGroup(count, length, 1),),
        states=torch.arange(count, device=items_BL.device),
        targets=torch.zeros_like(lengths_B),
        positions=lengths_B,
        num_global_targets=count,
    )


def keep_what_users_read(recommender: Recommender, items: ItemRows) -> ItemRows:
    """Return only those rows of the items on which a user's vector depends, and empty the weights on which none does.

    What `ItemRows.per_item` computes is among the rows, and what only it reads is not. So an adapted feature takes the
    place of the raw feature, and the adaptor's weights are emptied.

    Args:
        recommender: the model, in evaluation mode; its unread parameters become empty, in place.
        items: all N items, with `centers` or `center_rows`.

    Returns:
        The rows, with `centers` instead of `center_rows`.
    """
    item = torch.zeros(1, 1, dtype=torch.int64, device=items.item_ids.device)
    batch = last_states(item, item[0] + 1)
    with torch.no_grad():
        recommender.weighted_users(items, batch)  # fills items.computed and items.centers
    rows = dict(tensors_of(items))
    # The rows of one item are enough to see which of them matter.
    one = {key: tensor[:1].detach().requires_grad_() for key, tensor in rows.items()}
    weights = [weight.requires_grad_() for weight in recommender.parameters()]
    with torch.enable_grad():
        users = recommender.weighted_users(item_rows_of(items.item_ids[:1], one, items.centers), batch)
        found = torch.autograd.grad(users.sum(), [*one.values(), *weights], allow_unused=True)
    # Tensors of one list stay together.
    read = {key[:2] for key, gradient in zip(one, found, strict=False) if gradient is not None}
    for weight, gradient in zip(weights, found[len(one) :], strict=True):
        weight.requires_grad_(False)
        if gradient is None:
            weight.data = weight.new_empty(0)
    return item_rows_of(items.item_ids, {key: rows[key].detach() for key in rows if key[:2] in read}, items.centers)


def tensors_of(items: ItemRows) -> Iterator[tuple[Key, Tensor]]:
    """Yield the tensors that have a row for each item, with their names."""
    for field in ("ids", "cooccurrence", "popularity"):
        if getattr(items, field) is not None:
            yield (field,), getattr(items, field)
    for field in ("views", "features"):
        for name, rows in getattr(items, field).items():
            yield (field, name), rows
    for name, several in items.computed.items():
        for number, rows in enumerate(several):
            yield ("computed", name, str(number)), rows


def item_rows_of(item_ids: Tensor, tensors: dict[Key, Tensor], centers: dict[str, Tensor]) -> ItemRows:
    """Return the rows of the items `item_ids` that have these tensors; the reverse of `tensors_of`."""
    items = ItemRows(item_ids=item_ids, centers=dict(centers))
    for (field, *names), rows in tensors.items():
        if not names:
            setattr(items, field, rows)
        elif field == "computed":
            items.computed.setdefault(names[0], []).append(rows)
        else:
            getattr(items, field)[names[0]] = rows
    return items
