"""The ledger of memory: every storage of tensors, from when it is first seen to its end, with its kind and module."""

from __future__ import annotations

import contextlib
import re
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, in_kernel_invocation_manager
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves, tree_map_only

from harness.prediction.fakes import replaced

CONVOLUTIONS = {torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default}
"""Operators whose scratch space depends on the library."""


aten = torch.ops.aten

IN_PLACE = {
    *(aten.add_.Tensor, aten.add_.Scalar, aten.sub_.Tensor, aten.mul_.Tensor, aten.mul_.Scalar, aten.div_.Tensor),
    *(aten.div_.Scalar, aten.lerp_.Scalar, aten.lerp_.Tensor, aten.addcmul_.default, aten.addcdiv_.default),
    *(aten.copy_.default, aten.zero_.default, aten.fill_.Scalar, aten.fill_.Tensor, aten.sqrt_.default),
    *(aten.neg_.default, aten.sign_.default, aten.clamp_.default, aten.rsqrt_.default, aten.reciprocal_.default),
    *(aten.normal_.default, aten.uniform_.default, aten.bernoulli_.float),
}
"""Operators that write into their first argument and return it, and make nothing."""

ALL_IN_PLACE = {
    *(aten._foreach_add_.Scalar, aten._foreach_add_.List, aten._foreach_mul_.Scalar, aten._foreach_mul_.List),
    *(aten._foreach_div_.ScalarList, aten._foreach_div_.Scalar, aten._foreach_lerp_.Scalar),
    *(aten._foreach_addcmul_.Scalar, aten._foreach_addcdiv_.Scalar, aten._foreach_addcdiv_.ScalarList),
}
"""The same for all tensors of a list; they return nothing."""

VIEWS = {
    *(aten.detach.default, aten.view.default, aten.t.default, aten.transpose.int, aten.permute.default),
    *(aten.unsqueeze.default, aten.expand.default, aten._unsafe_view.default),
}
"""Operators that return their first argument's storage in another shape."""

PLAIN = {
    *(aten._to_copy.default, aten.clone.default, aten.zeros_like.default, aten.mm.default, aten.bmm.default),
    *(aten.addmm.default, aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor),
    *(aten.pow.Tensor_Scalar, aten.tanh.default, aten.tanh_backward.default, aten.sum.dim_IntList, aten.mean.dim),
    *(aten.silu.default, aten.neg.default, aten.rsqrt.default, aten.linalg_vector_norm.default),
    *(aten.native_layer_norm.default, aten.native_layer_norm_backward.default),
    *(aten.native_dropout_backward.default, aten.embedding.default, aten.embedding_dense_backward.default),
    *(aten.gelu.default, aten.gelu_backward.default),
}
"""Operators that make new tensors, whose shapes and types depend only on those of the arguments."""


class Kind(StrEnum):
    """What memory is for. Activations are what forward passes make, whether it is kept or not."""

    WEIGHTS = "weights"
    GRADIENTS = "gradients"
    OPTIMIZER_STATE = "optimizer_state"
    ACTIVATIONS = "activations"
    REST = "rest"


@dataclass(slots=True, kw_only=True)
class Block:
    """A storage, as large as the allocator makes it; `module` is the name of the module that it belongs to, if
    known."""

    bytes: int
    kind: Kind
    module: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The state of the ledger: the number of entries, and the bytes that were alive. Of these, `state_bytes` remain
    from update to update: weights and optimizer state. `doubtful_peak_bytes` is the highest possible peak until then,
    including the scratch space of convolutions."""

    entries: int
    alive_bytes: int
    state_bytes: int
    doubtful_peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The moment at which most was alive: how much, of what kind, and in which module (layer numbers are replaced by
    *)."""

    bytes: int
    kinds: dict[Kind, int]
    modules: dict[str, int]


class Ledger(TorchDispatchMode):
    """Records storages while it is entered, each rounded up to a multiple of `rounding` bytes."""

    def __init__(self, rounding: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self._rounding = rounding
        self._alive: dict[int, Block] = {}
        self._events: list[tuple[Block, bool]] = []
        self._within: list[str | None] = []
        self._names: dict[int, str] = {}
        self._fused = False
        self._made: dict[Any, Any] = {}
        self._alive_bytes = 0
        self._doubtful_peak_bytes = 0

    def __enter__(self) -> Any:
        self._resizing = replaced(torch.UntypedStorage, "resize_", self._resized(torch.UntypedStorage.resize_))
        self._resizing.__enter__()
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._resizing.__exit__(None, None, None)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # The most frequent calls are answered directly: asking fake tensors takes 0.2 ms.
        if args and type(args[0]) is FakeTensor:
            if function in IN_PLACE:
                return args[0]
            if function is torch.ops.prim.device.default:
                return args[0].fake_device
            if function in VIEWS and args[0].constant is None:
                return _without_data(function, args, kwargs or {})
        if function in ALL_IN_PLACE:
            return None
        if function in PLAIN and _are_fake(args) and (kwargs or {}).get("device") is None:
            result = self._plain(function, args, kwargs or {})
        else:
            result = function(*args, **(kwargs or {}))
        if not self._fused:
            self.see(result)
        if function in CONVOLUTIONS:
            self._doubtful_peak_bytes = max(self._doubtful_peak_bytes, self._alive_bytes + _scratch_bytes(args, result))
        return result

    def _plain(self, function: Any, args: Any, kwargs: Any) -> Any:
        """The result of a call that only makes new tensors, reused from an earlier identical call."""
        key = (function, _told(args), tuple(sorted(kwargs.items())))
        made = self._made.get(key)
        if made is None:
            result = function(*args, **kwargs)
            self._made[key] = tree_map_only(Tensor, _Shape.of, result)
            return result
        first: FakeTensor = args[0]
        with in_kernel_invocation_manager(first.fake_mode):
            if isinstance(made, _Shape):
                return made.made(first)
            return tuple(item and item.made(first) for item in made)

    def see(self, tree: Any) -> None:
        """Record the new storages of all tensors in a tree."""
        for storage in _storages(tree_leaves(tree)):
            if storage._cdata not in self._alive:
                self._begin(storage)
                weakref.finalize(storage, self._end, storage._cdata)

    def mark(self, tensors: Iterable[Any], kind: Kind, module: str | None = None) -> None:
        """Assign these tensors to a kind, and to the module if one is named."""
        for storage in _storages(tensors):
            block = self._alive.get(storage._cdata)
            if block is not None:
                block.kind, block.module = kind, module or block.module

    @contextlib.contextmanager
    def training(self, model: nn.Module, optimizer: Optimizer | None) -> Iterator[None]:
        """Classify memory by its purpose while the model trains with the optimizer."""
        self._names = {id(module): _layer(name) for name, module in model.named_modules()}
        owners: dict[int, str] = {}
        for name, module in model.named_modules():
            own = list(module.parameters(recurse=False))
            owners |= dict.fromkeys(map(id, own), _layer(name))
            self.mark([*own, *module.buffers(recurse=False)], Kind.WEIGHTS, _layer(name))

        def accumulated(parameter: Tensor) -> None:
            self.mark([parameter.grad], Kind.GRADIENTS, owners[id(parameter)])

        def stepped(optimizer: Optimizer, *_: object) -> None:
            for parameter, state in optimizer.state.items():
                self.mark(tree_leaves(state), Kind.OPTIMIZER_STATE, owners.get(id(parameter)))

        hooks: list[Any] = [
            item.register_post_accumulate_grad_hook(accumulated) for item in model.parameters() if item.requires_grad
        ]
        hooks += [
            register_module_forward_pre_hook(lambda module, _: self._within.append(self._names.get(id(module)))),
            register_module_forward_hook(lambda *_: self._left(), always_call=True),
        ]
        if optimizer is not None:
            hooks.append(optimizer.register_step_post_hook(stepped))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            self._within.clear()

    @contextlib.contextmanager
    def fused(self) -> Iterator[None]:
        """What is computed in this context is one kernel: none of its intermediate results is ever in memory."""
        before, self._fused = self._fused, True
        try:
            yield
        finally:
            self._fused = before

    def now(self) -> Moment:
        """The current state."""
        staying = (Kind.WEIGHTS, Kind.OPTIMIZER_STATE)
        return Moment(
            entries=len(self._events),
            alive_bytes=self._alive_bytes,
            state_bytes=sum(block.bytes for block in self._alive.values() if block.kind in staying),
            doubtful_peak_bytes=self._doubtful_peak_bytes,
        )

    def changes(self, since: Moment | None = None, until: Moment | None = None) -> list[int]:
        """Bytes that were allocated (negative: freed), in order. Empty storages are left out."""
        entries = self._events[since.entries if since else 0 : until.entries if until else None]
        return [block.bytes if begins else -block.bytes for block, begins in entries if block.bytes]

    def peak(self, until: Moment | None = None) -> Peak:
        """The highest point until that moment, or so far."""
        alive = highest = at = 0
        entries = self._events[: until.entries if until else None]
        for index, (block, begins) in enumerate(entries):
            alive += block.bytes if begins else -block.bytes
            if alive > highest:
                highest, at = alive, index
        kinds, modules = Counter[Kind](), Counter[str]()
        for block, begins in entries[: at + 1]:
            sign = 1 if begins else -1
            kinds[block.kind] += sign * block.bytes
            modules[block.module or ""] += sign * block.bytes
        return Peak(bytes=highest, kinds=dict(kinds), modules=dict(modules))

    def _begin(self, storage: torch.UntypedStorage) -> None:
        size = -(-storage.nbytes() // self._rounding) * self._rounding
        is_forward = torch.is_grad_enabled() and bool(self._within)
        kind = Kind.ACTIVATIONS if is_forward else Kind.REST
        block = Block(bytes=size, kind=kind, module=next((name for name in reversed(self._within) if name), None))
        self._alive[storage._cdata] = block
        self._alive_bytes += size
        self._events.append((block, True))

    def _end(self, key: int) -> None:
        block = self._alive.pop(key, None)
        if block is not None:
            self._alive_bytes -= block.bytes
            self._events.append((block, False))

    def _resized(self, resize: Any) -> Any:
        """Handle storages that are resized: sharded parameters are gathered into storages that are emptied to release
        them."""

        def resized(storage: torch.UntypedStorage, size: int) -> Any:
            block = self._alive.get(storage._cdata)
            result = resize(storage, size)
            if block is not None:
                self._end(storage._cdata)
                self._begin(storage)
                self._alive[storage._cdata].kind, self._alive[storage._cdata].module = block.kind, block.module
            return result

        return resized

    def _left(self) -> None:
        if self._within:
            self._within.pop()


@dataclass(frozen=True, slots=True)
class _Shape:
    """What is needed to make a tensor without data."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> _Shape:
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype)

    def made(self, like: FakeTensor) -> FakeTensor:
        found = torch.empty_strided(self.sizes, self.strides, dtype=self.dtype, device="meta")
        return FakeTensor(like.fake_mode, found, like.fake_device)


def _told(args: Any) -> Any:
    """Arguments as a key that distinguishes calls: tensors become their shapes, strides and types."""
    if isinstance(args, Tensor):
        return tuple(args.shape), args.stride(), args.dtype
    return tuple(map(_told, args)) if isinstance(args, tuple | list) else (type(args), args)


def _are_fake(args: Any) -> bool:
    """Whether all tensors among the arguments are fake ones without a known value, and the first argument is one."""
    if type(args[0]) is not FakeTensor:
        return False
    return all(type(item) is FakeTensor and item.constant is None for item in args if isinstance(item, Tensor))


def _without_data(function: Any, args: Any, kwargs: Any) -> FakeTensor:
    """Run on the meta tensors inside fake ones, and make a fake tensor of the result."""
    first: FakeTensor = args[0]
    with in_kernel_invocation_manager(first.fake_mode):
        found = function(*args, **kwargs)
    return FakeTensor(first.fake_mode, found, first.fake_device)


def _scratch_bytes(args: Any, result: Any) -> int:
    """What a convolution may take temporarily: everything it works on once more, rearranged, and the weight gradients
    of each sample before they are summed (oneDNN was seen to do so)."""
    tensors = [item for item in tree_leaves((args, result)) if isinstance(item, Tensor)]
    samples, *_ = max((item.shape for item in tensors if item.dim() > 1), key=len, default=(0,))
    weights = [item.nbytes for item in tensors if isinstance(item, nn.Parameter)]
    return sum(item.nbytes for item in tensors) + samples * max(weights, default=0)


def _storages(tensors: Iterable[Any]) -> Iterator[torch.UntypedStorage]:
    """The storages of tensors, including those inside tensor subclasses."""
    for item in tensors:
        if not isinstance(item, Tensor):
            continue
        if is_traceable_wrapper_subclass(item):
            names, _ = item.__tensor_flatten__()
            yield from _storages([getattr(item, name) for name in names])
        elif item.layout is torch.strided:
            yield item.untyped_storage()


def _layer(name: str) -> str:
    """Replace layer numbers, so that all layers of a stack have the same name."""
    return re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", name)
