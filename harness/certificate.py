"""The work certificate: what an arm really did.

Some facts are read off the timed life of the arm, which they must not slow down: parameters, data types, updates. The
others come from a replay afterwards: the same arm built anew from the same seed takes the first updates again, without
dropout and under observation. Two arms that do the same work then show the same losses, however they split it.
"""

from __future__ import annotations

import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._autograd import DeviceType
from torch._dynamo.eval_frame import OptimizedModule
from torch.autograd.profiler_util import FunctionEvent
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
from harness.communication import over_ranks
from harness.load import real_tokens, rows

SAMPLE = 1024
"""Elements of each parameter tensor whose movement is followed."""


GRADIENT_SAMPLE = 32
"""Elements of each gradient that are kept."""


OF_RANKS = ("communication", "averages_gradients", "replica", "gradient_squares", "gradient_sample")
"""What ranks tell of themselves that is no field of the certificate."""


class Updates:
    """Counts the updates that an optimizer has made; those that it skipped are not among them.

    GradScaler calls the step of a fused optimizer even where gradients are not finite: its kernel then leaves the
    weights alone, and only the device knows. So these are counted there, and nothing waits for them before the end.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._called = 0
        self._skipped: Tensor | None = None
        optimizer.register_step_post_hook(self._count)

    def _count(self, optimizer: Optimizer, *_: object) -> None:
        self._called += 1
        # Set while a step lasts, to 1 where something was not finite: the parameters of a rank are on one device.
        found: Tensor | None = getattr(optimizer, "found_inf", None)
        if found is not None:
            self._skipped = found.clone() if self._skipped is None else self._skipped.add_(found)

    @property
    def made(self) -> int:
        """So far; waits for the device where a scaler has left the decision to it."""
        return self._called - (0 if self._skipped is None else int(self._skipped))


class Witness:
    """Counts the updates of one rank and remembers where its parameters started."""

    def __init__(self, setup: TrainingSetup, optimizer: Optimizer | None) -> None:
        self._setup, self._optimizer = setup, optimizer
        self._parameters = dict(setup.model.named_parameters())
        self._start = {name: _sampled(parameter) for name, parameter in self._parameters.items()}
        self._updates = Updates(optimizer) if optimizer is not None else None

    def facts(self, steps: int) -> dict[str, Any]:
        """What the timed life shows, after `steps` steps; `parameters` by name, for `merge` to add the ranks up."""
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
        """Elements, whether they are trained, and of the sample how many there are and their squared movement."""
        start = self._start[name]
        movement = (_sampled(parameter).double() - start.double()).square().sum()
        return [parameter.numel(), parameter.requires_grad, start.numel(), float(movement)]


def merge(ranks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The certificate's fields from what each rank saw. A parameter of several ranks, whole or in shards, is one.

    All ranks make the same updates. Samples and tokens are those of the first rank of each replica, which sees the
    model's input.
    """
    held: dict[str, list[list[float]]] = defaultdict(list)
    for facts in ranks:
        for name, seen in facts["parameters"].items():
            held[name].append(seen)
    sampled = sum(seen[2] for copies in held.values() for seen in copies)
    movement = sum(seen[3] for copies in held.values() for seen in copies)
    sizes = {name: int(copies[0][0]) for name, copies in held.items()}
    unions = {
        name: _union([facts[name] for facts in ranks])
        for name in ("weight_dtypes", "state_dtypes", "gradient_dtypes", "attention_kernels")
        if all(name in facts for facts in ranks)
    }
    shares = [facts.get("communication") for facts in ranks]
    return {
        **{name: value for name, value in ranks[0].items() if name not in OF_RANKS},
        **_over_replicas(ranks),
        **_gradients(ranks),
        **unions,
        **over_ranks(shares),
        "parameters": sum(sizes.values()),
        "trained_parameters": sum(size for name, size in sizes.items() if held[name][0][1]),
        "tensors": len(held),
        "moved_tensors": sum(any(seen[3] > 0 for seen in copies) for copies in held.values()),
        "movement_rms": math.sqrt(movement / max(1, sampled)),
    }


def _over_replicas(ranks: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Samples and tokens of all replicas together; nothing where nothing was replayed."""
    firsts = {facts["replica"]: facts for facts in reversed(ranks) if "replica" in facts}
    names = ("samples_per_update", "tokens_per_update", "padded_tokens_per_update") if firsts else ()
    seen = {name: [facts[name] for facts in firsts.values()] for name in names}
    return {name: None if None in values else sum(values) for name, values in seen.items()}


def _gradients(ranks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first gradient of all ranks together, and by how much of themselves the norms are apart that ranks have
    averaged. Unknown where a rank cannot tell; where none has all parameters, there is no sample of all."""
    told = [facts.get("gradient_squares") for facts in ranks]
    known = [squares for squares in told if squares]
    if not known or len(known) < len(told):
        return {"gradient_norm": None, "gradient_sample": None, "gradient_spread": None}
    # A parameter of several ranks is one; where only one rank makes the updates, that is the first.
    together = {name: square for squares in reversed(known) for name, square in squares.items()}
    averaged = [math.sqrt(sum(facts["gradient_squares"].values())) for facts in ranks if facts["averages_gradients"]]
    return {
        "gradient_norm": math.sqrt(sum(together.values())),
        "gradient_sample": ranks[0]["gradient_sample"] if len(together) == len(known[0]) else None,
        "gradient_spread": (max(averaged) - min(averaged)) / (max(averaged) or 1.0) if len(averaged) > 1 else None,
    }


def _union(ranks: Sequence[list[str] | None]) -> list[str] | None:
    """What any rank saw; unknown where none saw anything and one could not tell."""
    seen = sorted(set().union(*(names for names in ranks if names is not None)))
    return None if not seen and None in ranks else seen


def _sampled(tensor: Tensor, most: int = SAMPLE) -> Tensor:
    """At most so many evenly spaced elements, copied; of a tensor subclass, of the first tensor that it stores."""
    flat = _stored(tensor)[0].detach().reshape(-1)
    return flat[:: max(1, flat.numel() // most)][:most].clone()


def dtypes(tensors: Iterable[Tensor]) -> list[str]:
    """The distinct element types that are really stored, as in `["bfloat16", "float32"]`."""
    return sorted({str(stored.dtype).removeprefix("torch.") for tensor in tensors for stored in _stored(tensor)})


def _stored(tensor: Tensor) -> list[Tensor]:
    """The plain tensors that a tensor subclass is made of: its own type is only what it passes for."""
    data = tensor.data
    if not is_traceable_wrapper_subclass(data):
        return [data]
    names, _ = data.__tensor_flatten__()
    parts = [getattr(data, name) for name in names]
    # A DTensor has its mesh among them.
    return [stored for part in parts if isinstance(part, Tensor) for stored in _stored(part)]


def compile_facts() -> dict[str, int | None]:
    """Graph breaks, recompilations and CUDA graphs that were given up so far in this process; None where nothing was
    compiled."""
    metrics = _compilations()
    if not metrics:
        return {"graph_breaks": None, "recompiles": None, "cudagraph_skips": None}
    counters = sys.modules["torch._dynamo.utils"].counters
    return {
        "graph_breaks": sum(counters["graph_break"].values()),
        # An id is frame/attempt: attempts after the first are recompilations of the same frame.
        "recompiles": sum(not str(item.compile_id).endswith("/0") for item in metrics),
        "cudagraph_skips": counters["inductor"]["cudagraph_skips"],
    }


def compile_seconds() -> float | None:
    """Seconds spent in torch.compile so far in this process; None where nothing was compiled."""
    metrics = _compilations()
    return sum(item.entire_frame_compile_time_s or 0.0 for item in metrics) if metrics else None


def _compilations() -> list[Any]:
    utils = sys.modules.get("torch._dynamo.utils")
    return list(utils.get_compilation_metrics()) if utils else []


def without_dropout(model: nn.Module) -> None:
    """Set the probability of every dropout layer to 0, and those that transformers' attention layers keep as numbers.

    Dropout that any other module calls as a function is out of reach.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name in ("dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


class Observer:
    """Watches a replay: the samples and tokens that reach the model, and the types of the gradients."""

    def __init__(self, setup: TrainingSetup, optimizer: Optimizer | None, *, watch_draws: bool = False) -> None:
        """`watch_draws`: whether the forward pass draws random numbers, of a model that is not wrapped."""
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
            kwargs = args[0]  # A batch as it is, for a model that computes its own loss.
        named: Batch = kwargs.get("input_ids")
        tensors = [leaf for leaf in tree_leaves((named, args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim()]
        if not tensors:
            return
        samples = rows(tensors, self._expected)
        self._samples += samples
        if self._has_tokens:
            mask, seen = kwargs.get("attention_mask"), tensors[0].numel()
            padded = 0 if mask is None else seen - real_tokens(mask, samples, seen)
            # An encoder and decoder has tokens on both sides.
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
        """The certificate's fields that a replay of `steps` updates shows; of samples and tokens this replica's."""
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
    """The squared norm of each gradient by the parameter's name, and some evenly spaced elements of each, without the
    factor that a loss scaler has left in them. Those in shards are put together, which need not give the order that
    elements had; unknown where one is sparse or of another kind."""
    factor = 1.0 if scale is None else float(scale)
    squares: dict[str, float] = {}
    samples: list[Tensor] = []
    for name, part in gradients.items():
        # A collective: every rank takes its steps with the others, and has the same parameters in the same order.
        gradient = (part.full_tensor() if isinstance(part, DTensor) else part).detach()
        if is_traceable_wrapper_subclass(gradient) or gradient.is_sparse:
            return {"gradient_squares": None, "gradient_sample": None}
        squares[name] = float(gradient.abs().double().square().sum()) / factor**2
        # Of a complex number the real part does.
        samples.append(_sampled(gradient, GRADIENT_SAMPLE).real.double() / factor)
    # None are left where they are used up within the backward pass.
    is_whole = bool(gradients) and not any(isinstance(part, DTensor) for part in gradients.values())
    return {"gradient_squares": squares, "gradient_sample": torch.cat(samples).tolist() if is_whole else None}


ATTENTION = (
    "scaled_dot_product",
    "flash_attn",
    "flash_attention",
    "flex_attention",
    "efficient_attention",
    # Of a GPU's kernels: PyTorch's FlashAttention, its later versions, the memory-efficient kernel and cuDNN's.
    "flash_fwd",
    "flashattn",
    "flashattention",
    "fmha_cutlassf",
    "sdpa_",
)
"""How the operators and kernels of fused attention are called, in small letters."""

BACKWARD = ("backward", "bwd", "bprop", "dgrad")


def attention_kernels(events: Iterable[FunctionEvent], *, compiled: bool) -> list[str] | None:
    """The fused attention operators of a profiled step, and on a GPU the kernels by their own names.

    Empty where attention was plain matrix products. None where something was compiled and no such kernel was seen: a
    compiled graph may compute attention under any name.
    """
    names = {_short(event.name) for event in events}
    found = {name for name in names if any(mark in name.lower() for mark in ATTENTION)}
    kernels = {name for name in found if not any(mark in name.lower() for mark in BACKWARD)}
    if compiled and not kernels:
        return None
    # The generic operator only forwards to the kernel that really ran.
    return sorted(kernels - {"aten::scaled_dot_product_attention"}) or sorted(kernels)


def cuda_graph_launches(events: Iterable[FunctionEvent]) -> int | None:
    """CUDA graphs that a profiled step launched; None where the profiler saw no kernels, and so no launches either."""
    seen = list(events)
    if not any(event.device_type == DeviceType.CUDA for event in seen):
        return None
    return sum(event.name.startswith(("cudaGraphLaunch", "cuGraphLaunch")) for event in seen)


def _short(name: str) -> str:
    """A kernel's name without what it returns, its template's arguments and its parameters."""
    return re.split("[<(]", name.removeprefix("void "), maxsplit=1)[0]
