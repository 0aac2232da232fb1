"""Tensors without data, on which whole compositions are built and take updates.

torch's fake tensors have shapes, types and storages. Where programs read data, which does not exist, the answers are
such that nothing overflows, every layer takes part, and every choice is of something that exists.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only
from transformers.utils import import_utils

from bench import checkpoints
from bench.workload import Batch

aten = torch.ops.aten

NUMBERS = {aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default}
"""Operators that read one element; in inference mode torch does not reach the first of them."""

OF_ALL = {aten.all.default, aten.all.dim, aten.all.dims}


@contextlib.contextmanager
def fake_tensors() -> Iterator[None]:
    """Nothing that is made has data, and common programs work without."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(in_place_conversion())
        # torch inspects what it drew, and redraws values outside the range.
        stack.enter_context(replaced(nn.init, "_no_grad_trunc_normal_", lambda tensor, *_, **__: tensor))
        # Updates that a scaler skips are the exception.
        stack.enter_context(replaced(torch.amp.GradScaler, "_maybe_opt_step", _step))
        # A mesh is made of the numbers of its ranks, which are real.
        stack.enter_context(replaced_everywhere("init_device_mesh", init_device_mesh, _on_data(init_device_mesh)))
        for name in ("__init__", "__getitem__", "_get_all_submeshes", "_flatten", "get_group", "get_local_rank"):
            stack.enter_context(replaced(DeviceMesh, name, _on_data(getattr(DeviceMesh, name))))
        # Trained weights take as much memory as random ones.
        stack.enter_context(replaced(checkpoints, "load", lambda workload, model: model))
        # transformers skips what depends on data if tensors have none.
        stack.enter_context(replaced_everywhere("is_tracing", import_utils.is_tracing, lambda *_: False))
        stack.enter_context(_Read())  # type: ignore[no-untyped-call]
        yield


def without_data(batch: Batch, times: int = 1) -> Batch:
    """The batch's shapes with `times` as many samples; called among fake tensors, it returns fake ones."""

    def shape(item: Tensor) -> tuple[int, ...]:
        return (times * len(item), *item.shape[1:]) if item.dim() else ()

    return tree_map_only(Tensor, lambda item: torch.empty(shape(item), dtype=item.dtype), batch)


@contextlib.contextmanager
def in_place_conversion() -> Iterator[None]:
    """Let `module.to` work on fake parameters: nn.Module refuses to swap tensors that a mode has looked at."""

    def exchange(first: Tensor, second: Tensor) -> None:
        first.__dict__, second.__dict__ = second.__dict__, first.__dict__
        torch._C._swap_tensor_impl(first, second)

    with replaced(torch.utils, "swap_tensors", exchange):
        yield


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` in this context; does nothing if there is no such attribute."""
    if not hasattr(owner, name):
        yield
        return
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def replaced_everywhere(name: str, before: Any, value: Any) -> Iterator[None]:
    """The same in every module that knows `before` by that name, for example because it imported it."""
    with contextlib.ExitStack() as stack:
        for module in [item for item in sys.modules.values() if vars(item).get(name) is before]:
            stack.enter_context(replaced(module, name, value))
        yield


def _step(scaler: Any, optimizer: Any, state: Any, *args: Any, **kwargs: Any) -> Any:
    return optimizer.step(*args, **kwargs)


def _on_data(function: Any) -> Any:
    def called(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return function(*args, **kwargs)

    return called


class _Read(TorchDispatchMode):
    """Answers operators that read data.

    A boolean is false (no overflow, no reason to stop), unless it is about all of a tensor (nothing is padded). A
    floating-point number is 0.5, and an integer is its position: indices read one after the other are all different and
    exist. A mask selects all elements.
    """

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in NUMBERS:
            return _number(args[0])
        if function is aten.nonzero.default:
            return _places(args[0])
        if function is aten.masked_select.default:
            return args[0].new_empty(torch.broadcast_shapes(args[0].shape, args[1].shape).numel())
        if function is aten.index.Tensor:
            args = (args[0], _without_masks(args[1]))
        if function is aten._grouped_mm.default:
            return _grouped(*args[:3])
        result = function(*args, **(kwargs or {}))
        if function in OF_ALL:
            result.is_of_all = True
        return result


def _grouped(left: Tensor, right: Tensor, ends: Tensor | None = None) -> Tensor:
    """The product of each expert, which fake tensors only support in bfloat16 (aten/src/ATen/native/GroupedMMUtils.h):
    groups are separated along the dimension that only one side has, or that both share."""
    shape = (*left.shape[-2:-1], *right.shape[-1:])
    if left.dim() == right.dim():
        groups = left.shape[0] if left.dim() > len(shape) else len(ends) if ends is not None else 1
        shape = (groups, *shape)
    return left.new_empty(shape)


def _number(tensor: Tensor) -> float | int | bool:
    if tensor.dtype is torch.bool:
        return getattr(tensor, "is_of_all", False)
    return 0.5 if tensor.is_floating_point() else int(tensor.storage_offset())


def _places(mask: Tensor) -> Tensor:
    """The index of every element, one per row."""
    return torch.empty((mask.numel(), mask.dim()), dtype=torch.int64, device=mask.device)


def _without_masks(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Masks replaced by the indices of all their elements, one tensor per dimension."""
    found: list[Tensor | None] = []
    for index in indices:
        is_mask = index is not None and index.dtype in (torch.bool, torch.uint8)
        found += _places(index).unbind(1) if index is not None and is_mask else [index]
    return found
