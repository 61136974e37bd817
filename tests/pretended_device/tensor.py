"""The tensors of the pretended device: wrappers whose `device` is cuda:0 and whose data are elsewhere."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

CUDA = torch.device("cuda", 0)


class PretendedTensor(Tensor):
    """A tensor that says it is on cuda:0.

    For PyTorch's C++ code it is a CPU tensor without memory. Each operator on it arrives in
    `PretendedDevice.__torch_dispatch__`, which computes with `content` instead.

    Attributes:
        content: the numbers, a plain tensor on the CPU or on the meta device.
    """

    content: Tensor
    # Functions of torch treat it as any tensor; only operators are intercepted.
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, content: Tensor) -> PretendedTensor:
        made = Tensor._make_wrapper_subclass(
            cls, content.size(), content.stride(), content.storage_offset(), dtype=content.dtype, device="cpu"
        )
        made.content = content
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        raise RuntimeError(f"{func}: a pretended tensor outside `with pretended_device()`")

    @property
    def device(self) -> torch.device:
        return CUDA

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    def get_device(self) -> int:
        return 0

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """Move or convert as `Tensor.to`, which would take this tensor for one of the CPU."""
        device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs) if not _is_tensor(args) else (*_of(args[0]), 0, 0)
        moved: Tensor = self if dtype in (None, self.dtype) else super().to(dtype)
        return moved.cpu() if device is not None and device.type == "cpu" else moved

    def cuda(self, *_: Any, **__: Any) -> Tensor:
        return self

    def cpu(self, *_: Any, **__: Any) -> Tensor:
        return torch.empty(self.shape, dtype=self.dtype).copy_(self)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def record_stream(self, stream: Any) -> None:
        """Do nothing: there are no streams."""

    def __repr__(self, *_: Any, **__: Any) -> str:
        return f"PretendedTensor({tuple(self.shape)}, {self.dtype})"


def _is_tensor(args: tuple[Any, ...]) -> bool:
    return bool(args) and isinstance(args[0], Tensor)


def _of(like: Tensor) -> tuple[torch.device, torch.dtype]:
    return like.device, like.dtype
