"""What a replay of the first updates shows: the model's input, and the gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import OptimizedModule
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

from bench.samples import continuation
from bench.seeds import states
from bench.setup import TrainingSetup
from bench.workload import Batch
from harness.evidence.compiling import compile_seconds
from harness.evidence.load import real_tokens, rows
from harness.evidence.witness import Updates, dtypes, sampled

GRADIENT_SAMPLE = 32
"""How many elements of each gradient are kept."""


class Observer:
    """Watches a replay: the samples and tokens that reach the model, and the types of the gradients."""

    def __init__(self, setup: TrainingSetup, optimizer: Optimizer | None, *, watch_draws: bool = False) -> None:
        """`watch_draws`: observe whether the forward pass of an unwrapped model draws random numbers."""
        self._parameters = dict(setup.model.named_parameters())
        self._wrappers = {type(module) for module in setup.model.modules()} & {OptimizedModule, DistributedDataParallel}
        self._gradient: dict[str, Any] = {"gradient_squares": None, "gradient_sample": None}
        self._stepped = False
        self._passes = 0
        self._normalises = any(isinstance(module, _BatchNorm) and module.training for module in setup.model.modules())
        self._replica = setup.replica
        self._expected = setup.share // setup.accumulate
        self._samples = self._tokens = self._padded = 0
        self._has_tokens = setup.workload.tokens_per_sample is not None
        text = setup.workload.text
        self._decodes = text is not None and text.objective is continuation
        self._gradient_dtypes: set[str] = set()
        self._updates = Updates(optimizer) if optimizer is not None else None
        setup.model.register_forward_pre_hook(self._saw_forward, with_kwargs=True)
        self._draws: bool | None = None
        if watch_draws:
            self._draws, self._states = False, states()
            setup.model.register_forward_pre_hook(self._before_forward)
            setup.model.register_forward_hook(self._after_forward)
        if optimizer is not None:
            optimizer.register_step_pre_hook(self._saw_step)

    def _saw_forward(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._passes += 1
        if args and isinstance(args[0], dict):
            kwargs = args[0]  # The batch itself, for a model that computes its own loss.
        named: Batch = kwargs.get("input_ids")
        tensors = [leaf for leaf in tree_leaves((named, args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim()]
        if not tensors:
            return
        samples = rows(tensors, self._expected)
        self._samples += samples
        if self._has_tokens:
            mask, seen = kwargs.get("attention_mask"), tensors[0].numel()
            padded = 0 if mask is None else seen - real_tokens(mask, samples, seen)
            # An encoder-decoder has tokens on both sides.
            decoded = kwargs["labels"].numel() if self._decodes else 0
            self._tokens += tensors[0].numel() + decoded - padded
            self._padded += padded

    def _before_forward(self, *_: object) -> None:
        self._states = states()

    def _after_forward(self, *_: object) -> None:
        self._draws = self._draws or self._states != states()

    def _saw_step(self, optimizer: Optimizer, *_: object) -> None:
        gradients = {name: item.grad for name, item in self._parameters.items() if item.grad is not None}
        self._gradient_dtypes.update(dtypes(gradients.values()))
        if not self._stepped:
            self._gradient = _gradient(gradients, getattr(optimizer, "grad_scale", None))
        self._stepped = True

    def facts(self, steps: int) -> dict[str, Any]:
        """The certificate's fields that a replay of `steps` updates shows; samples and tokens are those of this
        replica."""
        return {
            "replica": self._replica,
            "samples_per_update": self._samples / steps,
            "tokens_per_update": self._tokens / steps if self._has_tokens else None,
            "padded_tokens_per_update": self._padded / steps if self._has_tokens else None,
            "gradient_dtypes": sorted(self._gradient_dtypes),
            "draws": self._draws,
            "model_called": self._passes > 0,
            "samples_per_pass": self._samples / self._passes if self._passes else None,
            "normalises_batch": self._normalises,
            "compiled_nothing": OptimizedModule in self._wrappers and compile_seconds() is None,
            **self._gradient,
            "averages_gradients": DistributedDataParallel in self._wrappers,
            "replayed_updates": self._updates.made if self._updates else 0,
        }


def _gradient(gradients: Mapping[str, Tensor], scale: Tensor | None) -> dict[str, Any]:
    """The squared norm of each gradient by the parameter's name, and some evenly spaced elements of each, without a
    loss scaler's factor. Sharded gradients are gathered, which may change the order of elements. Unknown if a gradient
    is sparse or of another kind."""
    factor = 1.0 if scale is None else float(scale)
    squares: dict[str, float] = {}
    samples: list[Tensor] = []
    for name, part in gradients.items():
        # This is a collective: all ranks step together, and have the same parameters in the same order.
        gradient = (part.full_tensor() if isinstance(part, DTensor) else part).detach()
        if is_traceable_wrapper_subclass(gradient) or gradient.is_sparse:
            return {"gradient_squares": None, "gradient_sample": None}
        squares[name] = float(gradient.abs().double().square().sum()) / factor**2
        # For complex numbers the real part is enough.
        samples.append(sampled(gradient, GRADIENT_SAMPLE).real.double() / factor)
    # No gradients are left if they are used up within the backward pass.
    is_whole = bool(gradients) and not any(isinstance(part, DTensor) for part in gradients.values())
    return {"gradient_squares": squares, "gradient_sample": torch.cat(samples).tolist() if is_whole else None}
