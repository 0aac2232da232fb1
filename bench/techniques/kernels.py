"""Other kernels for parts of a model, and how the processor treats the smallest numbers."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.host import Host, Need, compiler, cpu, gpu, package
from bench.registry import Change, Stage, technique
from bench.samples import IGNORED
from bench.script.code import Code
from bench.setup import TrainingSetup, Unsupported


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    needs=[gpu(), package("liger_kernel", "liger-kernel"), compiler],
    source="https://arxiv.org/abs/2410.10989",
    code=Code(
        imports=("from liger_kernel.transformers import _apply_liger_kernel_to_instance",),
        model=(
            "is_language_model = model.get_output_embeddings() is not None",
            "_apply_liger_kernel_to_instance(model, fused_linear_cross_entropy=is_language_model)",
        ),
        trainer={"use_liger_kernel": True},
    ),
)
def liger(setup: TrainingSetup) -> TrainingSetup:
    """Norms, rotary positions, gated layers and the loss run Liger's fused Triton kernels."""
    from liger_kernel.transformers import _apply_liger_kernel_to_instance
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN
    from transformers import PreTrainedModel

    model = next((module for module in setup.model.modules() if isinstance(module, PreTrainedModel)), None)
    kind = None if model is None else model.config.model_type
    # If Liger leaves a model alone, it only logs that.
    if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise Unsupported(f"liger has no kernels for this model, {kind or type(setup.model).__name__}")
    assert model is not None
    # Its fused loss assumes that any model is a language model.
    _apply_liger_kernel_to_instance(model, fused_linear_cross_entropy=model.get_output_embeddings() is not None)
    return setup


def _no_chunks(_: Host) -> str | None:
    if hasattr(nn, "LinearCrossEntropyOptions"):
        return None
    return f"needs torch 2.13 or newer, whose linear_cross_entropy takes chunks; this is torch {torch.__version__}"


CHUNKS = Need("torch 2.13 or newer", _no_chunks)
"""The function that does the work. It is looked for by its name: a build from source may have it before its release."""


CHUNKED_LOSS = """\
def chunked_loss(hidden, head, labels):
    \"""The mean loss of each next token, one chunk of tokens at a time.\"""
    following = torch.nn.functional.pad(labels, (0, 1), value=-100)[..., 1:].reshape(-1)
    tensors = [hidden.reshape(-1, hidden.shape[-1]), head.weight, head.bias]
    if torch.is_autocast_enabled(hidden.device.type):
        kind = torch.get_autocast_dtype(hidden.device.type)
        tensors = [None if item is None else item.to(kind) for item in tensors]
    flat, weight, bias = tensors
    options = torch.nn.LinearCrossEntropyOptions()
    return torch.nn.functional.linear_cross_entropy(
        flat, weight, following, linear_bias=bias, ignore_index=-100, options=options
    )"""


@technique(
    stage=Stage.MEMORY,
    needs=[CHUNKS],
    # Liger and objectives replace the loss too. Chunks compute their gradients before the loss is scaled up, so float16
    # loses small ones.
    excludes={"liger", "amp_fp16", "objective"},
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.linear_cross_entropy.html",
    code=Code(
        functions=(CHUNKED_LOSS,),
        model=(
            "head = model.get_output_embeddings()",
            "head.forward = lambda hidden: hidden",
            "model.loss_function = lambda logits, labels, **_: chunked_loss(logits, head, labels)",
        ),
    ),
)
def chunked_loss(setup: TrainingSetup) -> TrainingSetup:
    """Output head and loss run on one chunk of tokens at a time, so the scores are never all in memory at once."""
    from transformers.loss.loss_utils import ForCausalLMLoss

    model: Any = setup.model
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    # An encoder-decoder has this loss by name, but computes its own.
    if (
        not isinstance(head, nn.Linear)
        or getattr(model, "loss_function", None) is not ForCausalLMLoss
        or model.config.is_encoder_decoder
    ):
        raise Unsupported(f"chunked_loss needs a causal language model of transformers; it is a {type(model).__name__}")

    def loss(logits: Tensor, labels: Tensor, *_: Any, **__: Any) -> Tensor:
        return _chunked(logits, head, labels)

    # The head returns its input instead of scores, and the loss applies the head's weight.
    head.forward = lambda hidden: hidden  # type: ignore[method-assign,assignment]
    model.loss_function = loss
    return setup


def _chunked(hidden: Tensor, head: nn.Linear, labels: Tensor) -> Tensor:
    """The mean cross entropy of predicting each next token; `hidden` has shape (samples, tokens, width)."""
    following = functional.pad(labels, (0, 1), value=IGNORED)[..., 1:].reshape(-1)
    tensors = [hidden.reshape(-1, hidden.shape[-1]), head.weight, head.bias]
    if torch.is_autocast_enabled(hidden.device.type):
        # Autocast does not cover this function.
        dtype = torch.get_autocast_dtype(hidden.device.type)
        tensors = [None if item is None else item.to(dtype) for item in tensors]
    flat, weight, bias = tensors
    options = nn.LinearCrossEntropyOptions()
    return functional.linear_cross_entropy(
        flat, weight, following, linear_bias=bias, ignore_index=IGNORED, options=options
    )


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    needs=[cpu],
    source="https://docs.pytorch.org/docs/stable/generated/torch.set_flush_denormal.html",
    code=Code(first=("torch.set_flush_denormal(True)",)),
)
def flush_denormals(setup: TrainingSetup) -> TrainingSetup:
    """The processor treats numbers too small for full precision as 0, because they can be very slow to compute with."""
    if not torch.set_flush_denormal(True) or not _every_thread_flushes():
        raise Unsupported("flush_denormals needs a processor and threads that can do it; these cannot")
    return setup


def _every_thread_flushes() -> bool:
    """Let the worker threads start anew, as they keep the setting that they started with; whether all flush then."""
    release = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)
    if release is not None:
        release(2)  # omp_pause_hard
    # The smallest normal number is 1.2e-38. torch gives each thread at least 2^15 elements.
    normal = torch.full((torch.get_num_threads() * 2**16,), 2e-38)
    return not (normal * 0.1).any()
