"""How much memory training will take, found out before it runs and without touching the device.

Two updates run on fake tensors, which have shapes and storages but no data, and every storage that is alive is counted.
The second update is the one that counts: the optimizer's state is there by then.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import optimizer as torch_optimizer
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from bench.composition import compose
from bench.setup import baseline
from bench.spec import Phase
from bench.workload import Workload, first_batch
from harness.message import Message
from harness.processes.worker import requested_workload
from harness.timing.step import infer_step, train_step

UPDATES = 2

ALLOCATION_BYTES = {"cpu": 1, "cuda": 512}
"""What the device's allocator rounds each allocation up to (CUDACachingAllocator: kMinBlockSize)."""

WORKSPACE_BYTES = {"cpu": 0, "cuda": 32 << 20}
"""What the matrix library keeps for itself in the allocator: on a Hopper GPU 32 MiB, on earlier ones 8 MiB
(https://docs.nvidia.com/cuda/cublas/#cublassetworkspace)."""

SLACK = 1.1
"""By how much more the allocator holds than is in use, because blocks do not always fit: an allowance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """Bytes at the highest point of an update: what tensors take, as the device's allocator counts it, of which
    `state_bytes` stay from update to update (weights and optimizer state)."""

    peak_bytes: int
    state_bytes: int


def need_bytes(workload: Message, corpus: Message, device: str) -> int:
    """Task: what the tensors of a process take that trains the workload plainly, with the allocator's slack."""
    return round(SLACK * peak_bytes(workload, corpus, (), device))


def peak_bytes(workload: Message, corpus: Message, techniques: Sequence[str], device: str) -> int:
    """Task: what the allocator's peak will be of a process that trains the workload under a composition, in bytes."""
    asked = requested_workload({"workload": workload, "corpus": corpus})
    return foresee(asked, techniques, device=device).peak_bytes


def foresee(workload: Workload, techniques: Sequence[str] = (), *, device: str) -> Foreseen:
    """The memory of one rank that trains the workload under a composition.

    Everything runs on fake CPU tensors, because a backward pass on fake CUDA tensors needs a GPU. For a GPU the
    attention kernel and the optimizer's batching are those that torch would choose there. Raises whatever a model or
    technique raises that cannot run without data.
    """
    real = first_batch(workload)
    live = _Live(ALLOCATION_BYTES[device])
    manners = _gpu_manners() if device == "cuda" else contextlib.nullcontext()
    with FakeTensorMode(allow_non_fake_inputs=True), live, in_place_conversion(), _no_redrawing(), manners:
        setup = baseline(workload, torch.device("cpu"))
        for technique in compose(techniques):
            setup = technique.apply(setup)
        trains = workload.phase is not Phase.INFER
        optimizer = (
            setup.optimizer([item for item in setup.model.parameters() if item.requires_grad]) if trains else None
        )
        for _ in range(UPDATES):
            live.peak_bytes = live.alive_bytes
            batch = tree_map_only(Tensor, lambda item: torch.empty(item.shape, dtype=item.dtype), real)
            if optimizer is None:
                infer_step(setup, batch)
            else:
                train_step(setup, optimizer, batch)
            del batch
    return Foreseen(
        peak_bytes=live.peak_bytes + WORKSPACE_BYTES[device],
        state_bytes=live.alive_bytes,
    )


class _Live(TorchDispatchMode):
    """Adds up the storages that are alive, each rounded up as the allocator does it."""

    def __init__(self, rounding: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.alive_bytes = self.peak_bytes = 0
        self._rounding = rounding
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = -(-storage.nbytes() // self._rounding) * self._rounding
        self._known.add(key)
        self.alive_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.alive_bytes)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive_bytes -= size


@contextlib.contextmanager
def in_place_conversion() -> Iterator[None]:
    """Let `module.to` work on fake parameters: nn.Module refuses to exchange those that a mode has looked at."""

    def exchange(first: Tensor, second: Tensor) -> None:
        first.__dict__, second.__dict__ = second.__dict__, first.__dict__
        torch._C._swap_tensor_impl(first, second)

    with _replaced(torch.utils, "swap_tensors", exchange):
        yield


@contextlib.contextmanager
def _no_redrawing() -> Iterator[None]:
    """Let weights be drawn from a truncated normal distribution: torch looks at what it drew, and draws again what lies
    outside, and fake tensors have nothing to look at."""
    with _replaced(torch.nn.init, "_no_grad_trunc_normal_", lambda tensor, *_, **__: tensor):
        yield


FLOAT32_IN_AUTOCAST: tuple[tuple[Any, str], ...] = (
    (torch, "pow"),
    (torch, "softmax"),
    (functional, "softmax"),
    (functional, "log_softmax"),
    (functional, "layer_norm"),
    (functional, "cross_entropy"),
)
"""Of the functions that autocast runs in float32 on a GPU and leaves alone on a CPU, those that models call by name
(https://docs.pytorch.org/docs/stable/amp.html#cuda-ops-that-autocast-to-float32)."""


@contextlib.contextmanager
def _gpu_manners() -> Iterator[None]:
    """Let fake CPU tensors be handled as torch handles those of a GPU.

    The functions themselves are exchanged: what is computed again in a backward pass calls them too, and there no mode
    of torch's is heard.
    """
    supported = [*torch_optimizer._foreach_supported_types, FakeTensor]
    exchanged: list[tuple[Any, str, Any]] = [
        (_foreach_utils, "_get_foreach_kernels_supported_devices", lambda: ["cpu"]),
        (torch_optimizer, "_get_foreach_kernels_supported_devices", lambda: ["cpu"]),
        (torch_optimizer, "_foreach_supported_types", supported),
        (functional, "scaled_dot_product_attention", partial(_attend, functional.scaled_dot_product_attention)),
        (functional, "dropout", _dropout),
        *((owner, name, partial(_in_float32, getattr(owner, name))) for owner, name in FLOAT32_IN_AUTOCAST),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, value in exchanged:
            stack.enter_context(_replaced(owner, name, value))
        yield


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """On a GPU the mask has one byte for each value, where the CPU's is as large as what it masks."""
    return torch.native_dropout(input, p, training)[0] if training else input


def _in_float32(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    if not torch.is_autocast_enabled("cpu"):
        return function(*args, **kwargs)
    wide = tree_map_only(Tensor, lambda item: item.float() if item.is_floating_point() else item, (args, kwargs))
    return function(*wide[0], **wide[1])


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    if not hasattr(owner, name):
        yield
        return
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _attend(  # noqa: PLR0917, the function that it stands for takes them so
    plain: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """scaled_dot_product_attention by the kernel that torch chooses on an NVIDIA GPU; `plain` is the CPU's own.

    FlashAttention takes half precision without a mask; the memory-efficient kernel takes the rest
    (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp). The CPU's own choice would keep the whole matrix of scores
    wherever there is dropout.
    """
    if enable_gqa:
        key, value = (item.repeat_interleave(query.shape[-3] // item.shape[-3], -3) for item in (key, value))
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    if is_half and attn_mask is None and torch.backends.cuda.flash_sdp_enabled():
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, dropout_p, is_causal, scale=scale)[0]  # type: ignore[no-any-return]
    if torch.backends.cuda.mem_efficient_sdp_enabled():
        bias = None if attn_mask is None else _bias(attn_mask, query)
        efficient = torch.ops.aten._scaled_dot_product_efficient_attention
        keep = query.requires_grad
        return efficient(query, key, value, bias, keep, dropout_p, is_causal, scale=scale)[0]  # type: ignore[no-any-return]
    with sdpa_kernel(SDPBackend.MATH):
        return plain(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)


def _bias(mask: Tensor, query: Tensor) -> Tensor:
    """The mask as the kernel takes it: added to the scores, one for each sample and head."""
    added = torch.zeros_like(mask, dtype=query.dtype).masked_fill(mask, 0.0) if mask.dtype is torch.bool else mask
    return added.expand(*query.shape[:-1], added.shape[-1])
