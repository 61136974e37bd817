"""What the pretended device counts."""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

# CUDA's caching allocator gives out memory in multiples of this.
_BLOCK = 512


@dataclass(frozen=True)
class Launch:
    """One operator that launches a kernel.

    Attributes:
        name: the operator, such as "aten.mm.default".
        backward: whether autograd launched it in a backward pass.
        num_bytes: bytes of its inputs and outputs, each read or written once.
        flops: floating-point operations of its matrix products; 0 for other operators.
        dtype: dtype of its first output; None if it has none.
    """

    name: str
    backward: bool
    num_bytes: int
    flops: int
    dtype: torch.dtype | None


@dataclass
class Counts:
    """What a GPU would have done since this object was made.

    Attributes:
        launches: the kernels, in order.
        waits: points at which the host waited for the device: operator, file and line of the project.
        copies: copies from the host to the device, likewise.
        mixed: operators on tensors of both, likewise.
        live: bytes of the device that are in use now.
        peak: most bytes that were in use at a time.
    """

    launches: list[Launch] = field(default_factory=list)
    waits: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    mixed: Counter[str] = field(default_factory=Counter)
    live: int = 0
    peak: int = 0
    _storages: Counter[int] = field(default_factory=Counter)

    @property
    def num_launches(self) -> int:
        return len(self.launches)

    @property
    def num_waits(self) -> int:
        return self.waits.total()

    def restart(self) -> None:
        """Forget all but the memory that is in use."""
        self.launches.clear()
        for counter in (self.waits, self.copies, self.mixed):
            counter.clear()
        self.peak = self.live

    def hold(self, wrapper: Tensor, content: Tensor) -> None:
        """Count the memory of `content` until `wrapper`, and every other wrapper of the same memory, is gone."""
        storage = content.untyped_storage()
        key, size = storage._cdata, -(-storage.nbytes() // _BLOCK) * _BLOCK
        if not self._storages[key]:
            self.live += size
            self.peak = max(self.peak, self.live)
        self._storages[key] += 1
        weakref.finalize(wrapper, self._release, key, size).atexit = False

    def _release(self, key: int, size: int) -> None:
        self._storages[key] -= 1
        if not self._storages[key]:
            del self._storages[key]
            self.live -= size
