"""Optimisers whose states have names, so that a checkpoint of one set of ranks can be loaded by another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

# The tensors of an optimiser's state by name, such as exp_avg, of each parameter by name.
States = Mapping[str, Mapping[str, Any]]


class Updates(Protocol):
    """Updates some of a model's parameters."""

    def step(self) -> None: ...
    def zero_grad(self) -> None: ...
    def states(self) -> States:
        """Return the states of all parameters, by the parameters' names. They are not copies."""
        ...


class NamedOptimizer:
    """A PyTorch optimiser of named parameters."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        self._names: dict[torch.Tensor, str] = {parameter: name for name, parameter in parameters.items()}
        self._optimizer = optimizer

    def step(self) -> None:
        self._optimizer.step()

    def zero_grad(self) -> None:
        self._optimizer.zero_grad()

    def states(self) -> States:
        return {self._names[parameter]: state for parameter, state in self._optimizer.state.items()}


class Optimizers:
    """Several optimisers as one. The name of a parameter begins with the name of its optimiser, as in `towers.x`."""

    def __init__(self, parts: Mapping[str, Updates]) -> None:
        self._parts = dict(parts)

    def step(self) -> None:
        for part in self._parts.values():
            part.step()

    def zero_grad(self) -> None:
        for part in self._parts.values():
            part.zero_grad()

    def states(self) -> States:
        return {
            f"{name}.{parameter}": state
            for name, part in self._parts.items()
            for parameter, state in part.states().items()
        }
