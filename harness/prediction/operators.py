"""The operators of an update: which are called, how often and on what, as text from which calls can be made again."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness.prediction.calls import Call
from harness.prediction.fakes import NUMBERS
from harness.prediction.limits import Unforeseen

COLLECTIVES = ("c10d", "_c10d_functional")
"""Namespaces of communication between ranks."""


aten = torch.ops.aten

CHOOSING = {aten.nonzero.default, aten.masked_select.default, aten._grouped_mm.default}
"""Operators whose work depends on data."""


class Operators(TorchDispatchMode):
    """Counts calls while it is entered. Raises Unforeseen if the work depends on data or chance, and for a call that
    cannot be written as text or made by itself."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.calls: Counter[Call] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(hasattr(item, "__tensor_flatten__") and not issubclass(item, FakeTensor) for item in types):
            # The plain tensors inside such a tensor follow, in calls of their own.
            return NotImplemented
        if not isinstance(function, OpOverload):
            raise Unforeseen(f"{function} is not made of operators")
        if function.namespace in COLLECTIVES:
            raise Unforeseen("how long ranks wait for each other is known only once they run")
        if function in CHOOSING or (function is aten.index.Tensor and any(map(_is_mask, args[1]))):
            raise Unforeseen(f"how much work {function} does depends on the data")
        if function in NUMBERS and getattr(args[0], "is_drawn", False):
            raise Unforeseen("what it does is random")
        if function.namespace != "profiler":
            self.calls[json.dumps([str(function), _told(args), _told(kwargs or {})])] += 1
        result = function(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in function.tags and isinstance(result, Tensor):
            result.is_drawn = True  # type: ignore[attr-defined]
        return result


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _told(value: Any) -> Any:
    match value:
        case Tensor():
            return {"tensor": [list(value.shape), list(value.stride()), _name(value.dtype)]}
        case list() | tuple():
            return [_told(item) for item in value]
        case dict():
            return {"named": {name: _told(item) for name, item in value.items()}}
        case None | bool() | int() | float() | str():
            return value
        case torch.dtype() | torch.layout() | torch.memory_format():
            return {"torch": _name(value)}
        case torch.device():
            return {"device": str(value)}
    raise Unforeseen(f"an operator is given a {type(value).__name__}")


def _name(value: Any) -> str:
    return str(value).removeprefix("torch.")
