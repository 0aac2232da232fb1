"""Gradient clipping by the total norm, for whole, sharded and scaled gradients alike."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer


def clip(optimizer: Optimizer, *, largest_norm: float) -> None:
    """Scale all gradients down by the same factor so that their total norm is at most `largest_norm`. A hook that the
    optimizer calls before its step."""
    trained = [item for group in optimizer.param_groups for item in group["params"] if item.grad is not None]
    # With a fused optimizer, GradScaler leaves dividing by the scale to its step: too late for the norm.
    scale = getattr(optimizer, "grad_scale", None)
    if scale is not None:
        for parameter in trained:
            parameter.grad.div_(scale)
        optimizer.grad_scale = None  # type: ignore[attr-defined]  # GradScaler sets it on any optimizer
    # Tensors of different meshes, or of none, cannot be mixed in one operation.
    alike: dict[DeviceMesh | None, list[Tensor]] = {}
    for parameter in trained:
        alike.setdefault(parameter.device_mesh if isinstance(parameter, DTensor) else None, []).append(parameter)
    norms = [_whole(get_total_norm([item.grad for item in items if item.grad is not None])) for items in alike.values()]
    total = get_total_norm(norms)
    for items in alike.values():
        clip_grads_with_norm_(items, largest_norm, total)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
