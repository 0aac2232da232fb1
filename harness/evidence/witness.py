"""What the timed life of an arm shows of its work, without slowing it down."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

from bench.setup import TrainingSetup
from harness.evidence.compiling import compile_facts

SAMPLE = 1024
"""How many elements of each parameter tensor are watched for movement."""


class Updates:
    """Counts the updates that an optimizer has made, without skipped ones.

    GradScaler calls the step of a fused optimizer even if gradients are not finite: its kernel then leaves the weights
    unchanged, and only the device knows. So skipped updates are counted there, and nothing waits for them before the
    end.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._called = 0
        self._skipped: Tensor | None = None
        optimizer.register_step_post_hook(self._count)

    def _count(self, optimizer: Optimizer, *_: object) -> None:
        self._called += 1
        # Set during a step, to 1 if something was not finite: the parameters of a rank are on one device.
        found: Tensor | None = getattr(optimizer, "found_inf", None)
        if found is not None:
            self._skipped = found.clone() if self._skipped is None else self._skipped.add_(found)

    @property
    def made(self) -> int:
        """Updates so far; waits for the device if a scaler leaves the decision to it."""
        return self._called - (0 if self._skipped is None else int(self._skipped))


class Witness:
    """Counts the updates of one rank and remembers the initial values of its parameters."""

    def __init__(self, setup: TrainingSetup, optimizer: Optimizer | None) -> None:
        self._setup, self._optimizer = setup, optimizer
        self._parameters = dict(setup.model.named_parameters())
        self._start = {name: sampled(parameter) for name, parameter in self._parameters.items()}
        self._updates = Updates(optimizer) if optimizer is not None else None

    def facts(self, steps: int) -> dict[str, Any]:
        """What the timed life shows after `steps` steps; `parameters` are by name, so that `merge` can combine the
        ranks."""
        state = dict(self._optimizer.state) if self._optimizer else {}
        updates = self._updates.made if self._updates else 0
        return {
            "parameters": {name: self._moved(name, parameter) for name, parameter in self._parameters.items()},
            "updates": updates,
            "skipped_updates": steps - updates if self._optimizer else 0,
            "weight_dtypes": dtypes(list(self._parameters.values())),
            "state_dtypes": dtypes([item for item in tree_leaves(state) if isinstance(item, Tensor) and item.dim()]),
            **compile_facts(),
        }

    def _moved(self, name: str, parameter: Tensor) -> list[float]:
        """The number of elements, whether they are trained, the size of the sample, and its squared movement."""
        start = self._start[name]
        movement = (sampled(parameter).double() - start.double()).square().sum()
        return [parameter.numel(), parameter.requires_grad, start.numel(), float(movement)]


def sampled(tensor: Tensor, most: int = SAMPLE) -> Tensor:
    """At most `most` evenly spaced elements, copied; for a tensor subclass, from the first tensor that it stores."""
    flat = _stored(tensor)[0].detach().reshape(-1)
    return flat[:: max(1, flat.numel() // most)][:most].clone()


def dtypes(tensors: Iterable[Tensor]) -> list[str]:
    """The distinct element types that are really stored, as in `["bfloat16", "float32"]`."""
    return sorted({str(stored.dtype).removeprefix("torch.") for tensor in tensors for stored in _stored(tensor)})


def _stored(tensor: Tensor) -> list[Tensor]:
    """The plain tensors inside a tensor subclass: its own type is only nominal."""
    data = tensor.data
    if not is_traceable_wrapper_subclass(data):
        return [data]
    names, _ = data.__tensor_flatten__()
    parts = [getattr(data, name) for name in names]
    # A DTensor also has its mesh among them.
    return [stored for part in parts if isinstance(part, Tensor) for stored in _stored(part)]
