"""How much work the operators of a step do: FLOP and bytes, by kind, of an update taken under observation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from harness.evidence.kinds import Kind
from harness.evidence.step_shares import Work, kind_of

aten = torch.ops.aten

PICKING = ("embedding", "index", "gather")
"""Operators with these in their name read no more of an argument than they output."""


class Tally(TorchDispatchMode):
    """Adds up the work of operators by kind while it is entered.

    FLOP are those of torch.utils.flop_counter: 2 m n k for a matrix product of m x k by k x n, and attention as if
    nothing were masked. Any other operator counts one for each element that it writes. Bytes count each tensor that an
    operator reads or writes once: what must be moved if nothing is in the caches. The operator's schema says what is
    written: for a fused optimizer also the gradients.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self._by_kind: defaultdict[Kind, Work] = defaultdict(Work)
        self._optimizers = 0

    @property
    def by_kind(self) -> Mapping[Kind, Work]:
        return self._by_kind

    def __enter__(self) -> Any:
        self._hooks = [
            register_optimizer_step_pre_hook(lambda *_: self._optimizing(1)),
            register_optimizer_step_post_hook(lambda *_: self._optimizing(-1)),
        ]
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(is_traceable_wrapper_subclass(item) for item in tree_leaves((args, kwargs))):
            # The plain tensors inside such a tensor follow, in calls of their own.
            return NotImplemented
        result = function(*args, **(kwargs or {}))
        if isinstance(function, OpOverload):
            self._add(function, args, kwargs or {}, result)
        return result

    def _optimizing(self, change: int) -> None:
        self._optimizers += change

    def _add(self, function: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        name = function.overloadpacket.__name__
        kind = kind_of(f"{function.namespace}::{name}")
        read, written = _tensors((args, kwargs)), _written(function, args, kwargs)
        # A result that shares storage with an argument is a view, or the argument itself.
        held = {item.untyped_storage()._cdata for item in read}
        written += [item for item in _tensors(result) if item.untyped_storage()._cdata not in held]
        if kind is None or not written or "empty" in name:
            return
        work = self._by_kind[Kind.OPTIMIZER if self._optimizers else kind]
        elements = sum(item.numel() for item in written)
        flops = _flops(function, args, kwargs, result)
        if flops is None:
            # Products unknown to the registry sum over the last dimension of their first matrix.
            flops = 2.0 * elements * read[0].shape[-1] if kind is Kind.PRODUCTS and read else float(elements)
        work.flops += flops
        written_bytes = sum(map(_bytes, written))
        picks = any(mark in name for mark in PICKING)
        work.bytes += written_bytes + sum(min(_bytes(item), written_bytes) if picks else _bytes(item) for item in read)


def _flops(function: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> float | None:
    """The FLOP of a product known to torch.utils.flop_counter, or of attention; None for any other operator."""
    packet = function.overloadpacket
    # The registry does not know the CPU's attention operators (pytorch/pytorch#195460).
    if packet is aten._scaled_dot_product_flash_attention_for_cpu:
        return float(sdpa_flop_count(*(item.shape for item in args[:3])))
    if packet is aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return float(sdpa_backward_flop_count(*(item.shape for item in args[:4])))
    formula = flop_registry.get(packet)
    return None if formula is None else float(formula(*args, **kwargs, out_val=result))


def _written(function: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The arguments that the operator changes in place."""
    named = dict(zip((item.name for item in function._schema.arguments), args, strict=False)) | dict(kwargs)
    changed = [item.name for item in function._schema.arguments if item.alias_info and item.alias_info.is_write]
    return _tensors([named.get(name) for name in changed])


def _tensors(tree: Any) -> list[Tensor]:
    return [item for item in tree_leaves(tree) if isinstance(item, Tensor) and item.layout is torch.strided]


def _bytes(item: Tensor) -> int:
    """Bytes of the elements that really exist: an expanded tensor repeats them."""
    elements = item.element_size()
    for size, stride in zip(item.shape, item.stride(), strict=True):
        elements *= size if stride or not size else 1
    return elements
