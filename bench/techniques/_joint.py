"""Several optimizers as one, for techniques that update different parameters in different ways.

Registers nothing: those techniques share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from torch import Tensor, nn
from torch.optim import Optimizer

StateDict = dict[str, Any]

Group = dict[str, Any]
"""Parameters under "params", and their own options."""


class Joint(Optimizer):
    """One optimizer to hook, scale, schedule and inspect. Its groups and state are those of its parts."""

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        for part in parts:
            for parameter, state in part.state.items():
                self.state[parameter] = state
            part.state = self.state
        self._parts = parts

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Load the state for all parts, which share it from then on."""
        super().load_state_dict(state_dict)
        groups = iter(self.param_groups)
        for part in self._parts:
            part.state = self.state
            part.param_groups = [next(groups) for _ in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take the step of every part."""
        for part in self._parts:
            part.step()


def as_groups(parameters: Iterable[Tensor] | Iterable[Group]) -> list[Group]:
    """The arguments of an optimizer, parameters or groups of them, as groups."""
    listed = list(parameters)
    if listed and isinstance(listed[0], dict):
        return cast(list[Group], listed)
    return [{"params": listed}]


def as_parameters(groups: Iterable[Group]) -> Iterable[nn.Parameter]:
    """Groups typed as parameters, as the setup declares them; every torch optimizer takes either."""
    return cast(Iterable[nn.Parameter], groups)


def part_of(group: Group, parameters: Iterable[Tensor]) -> Group:
    """A group of these parameters with the options of `group`."""
    return {**group, "params": list(parameters)}
