"""The dispatcher: chooses which of several equivalent computations of an equation runs, with a reason.

An equation is written once in plain torch, in `model/blocks/`. This plain form is correct on every device and in every
dtype, and tests compare every other path with it. `with_faster_paths` wraps it: each call is described as `Work`,
`choose` names a path, and the path computes the result. No other module looks at the device, the dtype, the number of
threads, the grad mode or the sizes to pick a computation.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, NamedTuple, ParamSpec

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")
_log = logging.getLogger(__name__)


class Part(Enum):
    """A computation that has more than one path."""

    TOWER_ATTENTION = "attention of a tower"
    CENTER_ATTENTION = "attention of interest centres"
    AFTER_ATTENTION = "a layer after its attention"
    FEED_FORWARD = "feed-forward"
    CENTER_PATH = "all layers of the interest centres"
    CENTER_STATES = "division of the states of interest centres"


class Path(Enum):
    """A way to compute a part."""

    PLAIN = "the equation, in torch's operators"
    TORCH_KERNEL = "torch's fused attention kernel"
    FEW_KEYS = "both projections moved to the keys, in torch's operators"
    COMPILED = "compiled loops and one autograd node"
    ONE_BUFFER = "oneDNN's linear maps, and one buffer for the gradients"
    RECOMPUTED = "only the inputs are kept, and the backward computes the rest again"
    BLOCKS = "all states of a batch in blocks of one shape"


class Choice(NamedTuple):
    """A path, and the reason for it in words. Reasons hold no numbers, so there are finitely many."""

    path: Path
    why: str


@dataclass(frozen=True, kw_only=True)
class Work:
    """Everything that the choice of a path depends on.

    Attributes:
        part: the part to compute.
        device: type of the device, such as "cpu".
        dtype: dtype of the inputs.
        autocast: whether CPU autocast is on.
        threads: number of torch's threads.
        onednn: whether torch was built with oneDNN.
        has_elements: False if the input is empty.
        rate: dropout rate; 0 in evaluation.
        num_keys: L, number of keys of each sequence.
        head_width: w = d/h.
        records_gradients: whether autograd records operations.
        stored_bytes: bytes that would be kept for the backward.
        budget_bytes: largest number of bytes that may be kept for it.
        exports: whether torch.export is recording the operators.
    """

    part: Part
    device: str
    dtype: torch.dtype
    autocast: bool
    threads: int
    onednn: bool
    has_elements: bool = True
    rate: float = 0.0
    num_keys: int = 0
    head_width: int = 0
    records_gradients: bool = False
    stored_bytes: float = 0.0
    budget_bytes: float = 0.0
    exports: bool = False


def work_on(
    tensor: Tensor,
    part: Part,
    *,
    rate: float = 0.0,
    num_keys: int = 0,
    head_width: int = 0,
    stored_bytes: float = 0.0,
    budget_bytes: float = 0.0,
) -> Work:
    """Return the `Work` of a part whose input is `tensor`, with torch's current settings."""
    return Work(
        part=part,
        device=tensor.device.type,
        dtype=tensor.dtype,
        autocast=torch.is_autocast_enabled("cpu"),
        threads=torch.get_num_threads(),
        onednn=torch.backends.mkldnn.is_available(),
        has_elements=tensor.numel() > 0,
        rate=rate,
        num_keys=num_keys,
        head_width=head_width,
        records_gradients=torch.is_grad_enabled(),
        stored_bytes=stored_bytes,
        budget_bytes=budget_bytes,
        exports=is_exporting(),
    )


def is_exporting() -> bool:
    """Return whether torch.export is recording the operators, for inputs of any size and on any device."""
    return torch.compiler.is_exporting()


def choose(work: Work) -> Choice:
    """Return the path for a part's work, and the reason."""
    plain = Choice(Path.PLAIN, "an exported program has torch's operators only")
    choice = plain if work.exports else _CHOICES[work.part](work)
    _log_once(work.part, choice)
    return choice


def has_few_keys(num_keys: int, head_width: int) -> bool:
    """Return whether it pays to move both projections from the centres to the keys.

    Each centre then takes h L d multiply-adds for its logits instead of d (d + L), and the same for its result.
    """
    return num_keys <= 2 * head_width


class WithFasterPaths(Generic[Arguments]):
    """An equation that is computed by the path that `choose` names.

    Attributes:
        plain: the plain form of the equation.
        paths: all its paths, including `plain`. All take the same arguments.
    """

    def __init__(
        self,
        plain: Callable[Arguments, Tensor],
        describe: Callable[Arguments, Work],
        faster: Mapping[Path, Callable[Arguments, Tensor]],
    ) -> None:
        self.plain = plain
        self.paths = {Path.PLAIN: plain, **faster}
        self._describe = describe
        functools.update_wrapper(self, plain)

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Tensor:
        return self.paths[self.choice(*args, **kwargs).path](*args, **kwargs)

    def choice(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Choice:
        """Return the path that a call with these arguments takes, and the reason."""
        return choose(self._describe(*args, **kwargs))


def with_faster_paths(
    describe: Callable[Arguments, Work], faster: Mapping[Path, Callable[Arguments, Tensor]]
) -> Callable[[Callable[Arguments, Tensor]], WithFasterPaths[Arguments]]:
    """Return a decorator for the plain form of an equation.

    Args:
        describe: returns the `Work` of a call, from its arguments.
        faster: other computations of the same result, with the same arguments.
    """
    return lambda plain: WithFasterPaths(plain, describe, faster)


def _tower_attention(work: Work) -> Choice:
    if work.rate > 0 and work.device == "cpu":
        return Choice(Path.PLAIN, "torch's CPU kernel has no dropout, and its fallback draws random numbers one by one")
    return Choice(Path.TORCH_KERNEL, "torch's kernel does not write attention weights to memory")


def _center_attention(work: Work) -> Choice:
    if work.device != "cpu" and work.head_width % 8 == 0:
        return Choice(Path.TORCH_KERNEL, "torch's kernel does not write attention weights to memory")
    if not has_few_keys(work.num_keys, work.head_width):
        return Choice(Path.PLAIN, "there are more keys than twice the width of a head")
    if work.rate > 0:
        return Choice(Path.FEW_KEYS, "keys are few, and the compiled loops have no dropout")
    why_not = _no_compiled_loops(work)
    if why_not:
        return Choice(Path.FEW_KEYS, f"keys are few, and {why_not}")
    return Choice(Path.COMPILED, "keys are few, in float32 on one CPU thread, without dropout")


def _after_attention(work: Work) -> Choice:
    if work.rate > 0:
        return Choice(Path.PLAIN, "the compiled loops have no dropout")
    why_not = _no_compiled_loops(work)
    if why_not:
        return Choice(Path.PLAIN, why_not)
    return Choice(Path.COMPILED, "float32 on one CPU thread, without dropout")


def _feed_forward(work: Work) -> Choice:
    why_not = _no_float32_on_cpu(work)
    if why_not:
        return Choice(Path.PLAIN, why_not)
    if not work.has_elements:
        return Choice(Path.PLAIN, "there are no rows")
    return Choice(Path.ONE_BUFFER, "float32 on CPU")


def _center_path(work: Work) -> Choice:
    if not work.records_gradients:
        return Choice(Path.PLAIN, "there is no backward")
    if work.stored_bytes > work.budget_bytes:
        return Choice(Path.RECOMPUTED, "the backward would keep more than model.mdsrec.center_memory_gib")
    return Choice(Path.PLAIN, "what the backward keeps is within model.mdsrec.center_memory_gib")


def _center_states(work: Work) -> Choice:
    if work.device == "cpu":
        return Choice(Path.PLAIN, "chunks of a group leave out keys that no state sees")
    return Choice(Path.BLOCKS, "a GPU launches one kernel for all blocks")


def _no_compiled_loops(work: Work) -> str:
    """Return why the loops of `kernels/layers/` cannot be used; empty if they can."""
    why_not = _no_float32_on_cpu(work)
    if not why_not and work.threads > 1:
        return "the compiled loops use one thread, but torch's operators use several"
    return why_not


def _no_float32_on_cpu(work: Work) -> str:
    """Return why code for float32 on CPU cannot be used; empty if it can."""
    if work.device != "cpu":
        return "the device is not a CPU"
    if work.dtype != torch.float32 or work.autocast:
        return "the computation is not in float32"
    if not work.onednn:
        return "torch was built without oneDNN"
    return ""


@functools.cache
def _log_once(part: Part, choice: Choice) -> None:
    _log.debug("%s: %s (%s)", part.value, choice.path.value, choice.why)


_CHOICES: dict[Part, Callable[[Work], Choice]] = {
    Part.TOWER_ATTENTION: _tower_attention,
    Part.CENTER_ATTENTION: _center_attention,
    Part.AFTER_ATTENTION: _after_attention,
    Part.FEED_FORWARD: _feed_forward,
    Part.CENTER_PATH: _center_path,
    Part.CENTER_STATES: _center_states,
}
