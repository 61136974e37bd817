"""Makes cuda:0 usable: replaces those functions of PyTorch that need a GPU, or that ask its C++ code for a device."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Collection, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp.autocast_mode import autocast

from tests.pretended_device import kernels
from tests.pretended_device.device import PretendedDevice
from tests.pretended_device.tensor import CUDA, PretendedTensor

MEMORY = 141 * 10**9  # bytes of the device: an H200's


@contextlib.contextmanager
def pretended_device(
    data: Literal["cpu", "meta"] = "cpu", may_wait: Collection[str] | None = ()
) -> Iterator[PretendedDevice]:
    """Make `torch.device("cuda", 0)` usable, by tensors that pretend.

    Args:
        data: where operators compute. With "meta" they compute shapes only: every floating-point number that the host
            reads is then 0. Whole numbers and flags are computed as far as they depend on no floating-point numbers.
        may_wait: parts of "operator file function:line" (`place`), where the host may wait for the device; None:
            everywhere.

    Yields:
        The device, with its counts.

    A wait elsewhere raises HostWait, and an operator on tensors of both devices MixedDevices.
    """
    device = PretendedDevice(data, may_wait)
    cuda: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "_initialized": True,
        "device": lambda _: contextlib.nullcontext(),
        "current_device": lambda: 0,
        "get_device_properties": lambda *_: SimpleNamespace(total_memory=MEMORY),
        "get_rng_state": lambda *_: device.generator.get_state(),
        "set_rng_state": lambda state, *_: device.generator.set_state(state),
        "manual_seed_all": device.generator.manual_seed,
        "Stream": _Stream,
        "current_stream": _Stream,
        "stream": lambda _: contextlib.nullcontext(),
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(torch.cuda, **cuda))
        stack.enter_context(mock.patch.object(F, "dropout", kernels.dropout))
        stack.enter_context(mock.patch.object(F, "scaled_dot_product_attention", kernels.attention))
        stack.enter_context(mock.patch.object(torch._VF, "gru", partial(kernels.gru, device)))
        for module in (torch, torch.amp, torch.amp.autocast_mode):
            stack.enter_context(mock.patch.object(module, "autocast", _Autocast))
        stack.enter_context(mock.patch.object(torch, "tensor", _tensor))
        for name in ("torch.utils._foreach_utils", "torch.optim.optimizer"):  # on CUDA, one kernel updates all weights
            module = importlib.import_module(name)
            types = [*module._foreach_supported_types, PretendedTensor]
            stack.enter_context(mock.patch.object(module, "_foreach_supported_types", types))
        clipping = importlib.import_module("torch.nn.utils.clip_grad")
        stack.enter_context(mock.patch.object(clipping, "_group_tensors_by_device_and_dtype", _grouped))
        # `Module.to` replaces parameters, because the memory of one cannot become a pretended tensor's.
        overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.enter_context(mock.patch.object(Tensor, "pin_memory", lambda tensor, *_: tensor))
        yield stack.enter_context(device)


_grouped_tensors = importlib.import_module("torch.utils._foreach_utils")._group_tensors_by_device_and_dtype


def _grouped(tensors: Any, *args: Any, **kwargs: Any) -> Any:
    """Return tensors by device and dtype; PyTorch's C++ code takes pretended tensors for those of the CPU."""
    is_ours = isinstance(tensors[0][0], PretendedTensor)
    found = _grouped_tensors(tensors, *args, **kwargs)
    return {(CUDA if is_ours else device, dtype): group for (device, dtype), group in found.items()}


class _Stream:
    """A stream in which everything is done at once, in the order in which it is queued."""

    def __init__(self, *_: Any) -> None:
        pass

    def wait_stream(self, other: _Stream) -> None:
        pass


_new_tensor = torch.tensor


def _tensor(data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
    """Return `torch.tensor`, whose C++ code makes a tensor of the device without calling the dispatcher's modes."""
    if device is None or torch.device(device).type != "cuda":
        return _new_tensor(data, device=device, **kwargs)
    return _new_tensor(data, **kwargs).to(device)


class _Autocast(autocast):
    """CUDA's autocast is the CPU's here, because the pretended tensors are CPU tensors for PyTorch's C++ code."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)
