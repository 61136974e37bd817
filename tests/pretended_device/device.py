"""The operators of the pretended device: they are run and counted, and what CUDA would refuse is refused."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from tests.pretended_device.counts import Counts, Launch
from tests.pretended_device.tensor import PretendedTensor

ROOT = str(Path(__file__).resolve().parents[2]) + "/"
_OWN = tuple(str(Path(__file__).with_name(name)) for name in ("device.py", "kernels.py", "patches.py", "tensor.py"))
# Operators whose result the host must know before it can go on: a number, or the size of the result.
_WAITS = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim",
    "unique_consecutive", "bincount",
}  # fmt: skip
# Operators that launch nothing, beside views.
_FREE = {
    "_local_scalar_dense", "_unsafe_view", "_reshape_alias", "empty", "empty_like", "empty_strided", "new_empty",
    "new_empty_strided", "resize_", "set_", "lift_fresh", "sparse_compressed_tensor", "sparse_csr_tensor",
    "_sparse_compressed_tensor_unsafe",
}  # fmt: skip
# Operators that read only some rows of their first argument, or write only some of its numbers.
_READS_SOME = {"embedding", "index", "index_select", "gather"}
_WRITES_SOME = {"scatter_", "scatter_add_", "index_put_", "index_add_", "index_copy_"}


class HostWait(RuntimeError):
    """The host waits for the device where the test does not expect it."""


class MixedDevices(RuntimeError):
    """An operator got tensors of the CPU and of the device, which CUDA refuses."""


class PretendedDevice(TorchDispatchMode):
    """Runs operators on pretended tensors.

    Random numbers of the device come from a generator of its own, as on CUDA; `torch.manual_seed` seeds it too.

    Attributes:
        counts: what a GPU would have done.
    """

    def __init__(self, data: Literal["cpu", "meta"], may_wait: Collection[str] | None) -> None:
        super().__init__()
        self.counts = Counts()
        self._is_meta, self._may_wait = data == "meta", may_wait
        self.generator = torch.Generator()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = [tensor for tensor in tensors if isinstance(tensor, PretendedTensor)]
        target = kwargs.get("device")
        makes_ours = target is not None and torch.device(target).type == "cuda"
        if target is not None and not tensors and torch._C._current_autograd_node() is not None:
            makes_ours = True  # zeros for a missing gradient: autograd takes the tensors for those of the CPU
        if not ours and not makes_ours:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name in ("_to_copy", "copy_"):
            moved = self._copied(func, args, kwargs)
            if moved is not None:
                return moved
        if not makes_ours:  # `empty_like` may be told another device than its argument's
            self._refuse_mixed(name, func, tensors)
        self._note_wait(name, func, args, kwargs)
        if makes_ours:
            kwargs["device"] = torch.device("meta" if self._is_meta else "cpu")
        result = self._computed(name, func, args, kwargs)
        if makes_ours and self._is_meta and not _is_float(result):
            result = func(*args, **{**kwargs, "device": torch.device("cpu")})
        if not func.is_view and name not in _FREE:
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            self.counts.launches.append(_launch(name, func, args, kwargs, tensors, outputs))
        back = {id(tensor.content): tensor for tensor in ours}
        return tree_map(lambda leaf: self._wrapped(leaf, back), result)

    def hold(self, content: Tensor) -> PretendedTensor:
        """Return a pretended tensor with this content, whose memory is counted."""
        made = PretendedTensor(content)
        self.counts.hold(made, content)
        return made

    def _wrapped(self, leaf: Any, back: dict[int, PretendedTensor]) -> Any:
        if not isinstance(leaf, Tensor) or leaf.layout != torch.strided:
            return leaf  # a sparse matrix stays as it is, and may be multiplied with pretended tensors
        return back[id(leaf)] if id(leaf) in back else self.hold(leaf)

    def _computed(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Call the operator on the contents."""
        if func.overloadpacket is torch.ops.aten.mm and args[0].layout != torch.strided and self._is_meta:
            return torch.empty(args[0].shape[0], args[1].shape[1], dtype=args[1].dtype, device="meta")
        plain = tree_map(_content, (args, kwargs))
        contents = [leaf for leaf in tree_leaves(plain) if isinstance(leaf, Tensor)]
        if "sparse" in name or name == "_local_scalar_dense":  # of a matrix only the places of its values count
            plain = tree_map(lambda leaf: _with_memory(leaf), plain)
        elif any(content.is_meta for content in contents):
            changed = args[0] if name.endswith("_") and isinstance(args[0], PretendedTensor) else None
            plain = tree_map(_on_meta, plain)
            if changed is not None:
                changed.content = plain[0][0]
        if torch.Tag.nondeterministic_seeded in func.tags:
            with self._own_random_numbers():
                return func(*plain[0], **plain[1])
        return func(*plain[0], **plain[1])

    @contextlib.contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        host = torch.get_rng_state()
        torch.set_rng_state(self.generator.get_state())
        try:
            yield
        finally:
            self.generator.set_state(torch.get_rng_state())
            torch.set_rng_state(host)

    def _copied(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Return the result of a copy between host and device; None if it stays on the device."""
        if func.overloadpacket is torch.ops.aten.copy_:
            to, source = args[0], args[1]
            if isinstance(to, PretendedTensor) == isinstance(source, PretendedTensor):
                return None
            if isinstance(to, PretendedTensor):
                self.counts.copies[place(func)] += 1
                if not to.content.is_meta:
                    to.content.copy_(source)
            else:
                self._wait(func)
                to.copy_(_with_memory(source.content))
            return to
        source, target = args[0], kwargs.get("device")
        if not isinstance(source, PretendedTensor):
            self.counts.copies[place(func)] += 1
            dtype = kwargs.get("dtype") or source.dtype
            device = "meta" if self._is_meta and dtype.is_floating_point else "cpu"
            return self.hold(torch.empty_like(source, dtype=dtype, device=device).copy_(source))
        # Autograd converts a gradient back to the dtype of a tensor that it takes for one of the CPU.
        if target is None or torch.device(target).type == "cuda" or torch._C._current_autograd_node() is not None:
            kwargs.pop("device", None)
            return None
        self._wait(func)
        return _with_memory(source.content).to(kwargs.get("dtype") or source.dtype, copy=True)

    def _refuse_mixed(self, name: str, func: Any, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            if not isinstance(tensor, PretendedTensor) and tensor.dim() and tensor.layout == torch.strided:
                if name in ("index", "index_put_", "index_put"):  # CUDA copies indices of the host by itself
                    self.counts.copies[place(func)] += 1
                    continue
                self.counts.mixed[place(func)] += 1
                raise MixedDevices(f"{place(func)}: tensors of cpu and cuda:0")

    def _note_wait(self, name: str, func: Any, args: Any, kwargs: Any) -> None:
        waits = name in _WAITS
        if name == "repeat_interleave":
            waits = "Tensor" in str(func) and kwargs.get("output_size") is None
        if name in ("index", "index_put", "index_put_"):
            waits = any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        if waits:
            self._wait(func)

    def _wait(self, func: Any) -> None:
        where = place(func)
        self.counts.waits[where] += 1
        if self._may_wait is not None and not any(allowed in where for allowed in self._may_wait):
            raise HostWait(f"{where}: the host waits for the device; allowed at: {sorted(self._may_wait)}")


def place(func: Any) -> str:
    """Return "operator file function:line" of the innermost call in this project; "autograd" if there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        # A virtual environment may lie in the checkout.
        if file.startswith(ROOT) and "site-packages" not in file and file not in _OWN:
            return f"{func} {file.removeprefix(ROOT)} {frame.f_code.co_name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return f"{func} autograd"


def _launch(name: str, func: Any, args: Any, kwargs: Any, inputs: list[Tensor], outputs: list[Tensor]) -> Launch:
    read = inputs[1:] if name in _READS_SOME | _WRITES_SOME else inputs
    written = inputs[1:] if name in _WRITES_SOME else outputs
    num_bytes = sum(map(_num_bytes, read)) + sum(map(_num_bytes, written))
    if name in _READS_SOME:
        num_bytes += sum(map(_num_bytes, outputs))
    sparse = next((tensor for tensor in inputs if tensor.layout != torch.strided), None)
    flops = 0
    if sparse is not None and name == "mm":
        width = args[1].shape[1]
        flops = 2 * sparse._nnz() * width
        num_bytes = sparse._nnz() * (8 + width * args[1].element_size()) + sum(map(_num_bytes, outputs))
    elif func.overloadpacket in flop_registry:
        out = outputs[0] if len(outputs) == 1 else tuple(outputs)
        flops = flop_registry[func.overloadpacket](*args, **kwargs, out_val=out)
    return Launch(
        name=str(func),
        backward=torch._C._current_autograd_node() is not None,
        num_bytes=num_bytes,
        flops=flops,
        dtype=outputs[0].dtype if outputs else None,
    )


def _num_bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor's numbers; those of an expanded one are in memory once."""
    if tensor.layout != torch.strided:
        return 0
    distinct = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        distinct *= size if stride or not size else 1
    return distinct * tensor.element_size()


def _content(leaf: Any) -> Any:
    return leaf.content if isinstance(leaf, PretendedTensor) else leaf


def _on_meta(leaf: Any) -> Any:
    return leaf.to("meta") if isinstance(leaf, Tensor) and leaf.layout == torch.strided else leaf


def _with_memory(leaf: Any) -> Any:
    """Return the same tensor; zeros in place of one on the meta device."""
    return torch.zeros_like(leaf, device="cpu") if isinstance(leaf, Tensor) and leaf.is_meta else leaf


def _is_float(result: Any) -> bool:
    return all(leaf.is_floating_point() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
