"""What a GPU's kernels keep in memory, where it differs from the same call on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import optimizer as torch_optimizer
from torch.utils import _foreach_utils
from torch.utils._pytree import tree_map_only

from harness.prediction.fakes import replaced
from harness.prediction.limits import FLASH

FLOAT32_IN_AUTOCAST: tuple[tuple[Any, str], ...] = (
    (torch, "pow"),
    (torch, "softmax"),
    (functional, "softmax"),
    (functional, "log_softmax"),
    (functional, "layer_norm"),
    (functional, "cross_entropy"),
)
"""Functions that autocast runs in float32 on a GPU but not on a CPU, as far as models call them by name
(https://docs.pytorch.org/docs/stable/amp.html#cuda-ops-that-autocast-to-float32)."""


@contextlib.contextmanager
def gpu_kernels(capability: tuple[int, int]) -> Iterator[None]:
    """Let torch handle fake CPU tensors like those of a GPU with that compute capability.

    The functions themselves are replaced: recomputation in a backward pass calls them too, and no torch mode is active
    there.
    """
    attend = partial(_attend, functional.scaled_dot_product_attention, capability >= FLASH)
    supported = [*torch_optimizer._foreach_supported_types, FakeTensor]
    exchanged: list[tuple[Any, str, Any]] = [
        (_foreach_utils, "_get_foreach_kernels_supported_devices", lambda: ["cpu"]),
        (torch_optimizer, "_get_foreach_kernels_supported_devices", lambda: ["cpu"]),
        (torch_optimizer, "_foreach_supported_types", supported),
        (functional, "scaled_dot_product_attention", attend),
        (functional, "dropout", _dropout),
        *((owner, name, partial(_in_float32, getattr(owner, name))) for owner, name in FLOAT32_IN_AUTOCAST),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, value in exchanged:
            stack.enter_context(replaced(owner, name, value))
        yield


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """On a GPU the mask has one byte per value, while the CPU's is as large as the tensor that it masks."""
    return torch.native_dropout(input, p, training)[0] if training else input


def _in_float32(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    if not torch.is_autocast_enabled("cpu"):
        return function(*args, **kwargs)
    wide = tree_map_only(Tensor, lambda item: item.float() if item.is_floating_point() else item, (args, kwargs))
    return function(*wide[0], **wide[1])


def _attend(  # noqa: PLR0917, the function that it stands for takes them so
    plain: Callable[..., Tensor],
    has_flash: bool,
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
    """scaled_dot_product_attention with the kernel that torch chooses on an NVIDIA GPU. `plain` is the CPU's own; some
    GPUs have no FlashAttention.

    FlashAttention takes half precision without a mask; the memory-efficient kernel takes the rest
    (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp). The CPU's own choice would keep the whole matrix of scores
    whenever there is dropout.
    """
    if enable_gqa:
        key, value = (item.repeat_interleave(query.shape[-3] // item.shape[-3], -3) for item in (key, value))
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    if has_flash and is_half and attn_mask is None and torch.backends.cuda.flash_sdp_enabled():
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
