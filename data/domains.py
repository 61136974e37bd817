"""Says where the users and items of each dataset are among those of all datasets of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One of a run's datasets. Its users and items are consecutive among those of the run.

    Attributes:
        name: the dataset's folder name; if several datasets have one name, a number follows it.
        path: the folder or URI of the dataset.
        fingerprint: SHA-256 of its content.
        first_user: its first user.
        num_users: how many users it has.
        first_item: its first item.
        num_items: how many items it has.
    """

    name: str
    path: str
    fingerprint: str
    first_user: int
    num_users: int
    first_item: int
    num_items: int
