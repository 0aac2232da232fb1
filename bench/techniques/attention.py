"""Which kernel computes attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.host import compiler, gpu
from bench.registry import EVERY_PHASE, Change, Stage, technique
from bench.script.code import Code
from bench.setup import TrainingSetup, Unsupported
from bench.spec import Phase

SDPA_DOCS = "https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html"

Attention = Callable[..., tuple[Tensor, Any]]


KERNELS = ("math", "flash", "mem_efficient", "cudnn")
"""Those of scaled_dot_product_attention, as torch's switches call them."""


def _only(kernel: str) -> Code:
    """A script that switches all others off."""
    return Code(first=tuple(f"torch.backends.cuda.enable_{name}_sdp({name == kernel})" for name in KERNELS))


def _use(setup: TrainingSetup, name: str, implementation: str) -> TrainingSetup:
    """Let the model compute attention by what transformers knows as `implementation`. Raises Unsupported if it cannot.

    Within the layers, not around the model: checkpointed layers are computed again outside of the model's forward.
    """
    choose = getattr(setup.model, "set_attn_implementation", None)
    if choose is None:
        raise Unsupported(f"{name} needs a transformers model; it is a {type(setup.model).__name__}")
    try:
        choose(implementation)
    except ValueError as error:
        raise Unsupported(f"{name} needs a model that supports it: {str(error).split('. ')[0]}") from error
    # If a model's layers ignore the choice, transformers only warns.
    if setup.model.config._attn_implementation != implementation:  # type: ignore[union-attr]
        raise Unsupported(f"{name} needs a model whose attention can be chosen; {type(setup.model).__name__}'s cannot")
    return setup


def _use_kernel(setup: TrainingSetup, name: str, kernel: SDPBackend) -> TrainingSetup:
    """Let scaled_dot_product_attention run this kernel and no other."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attend(module: Any, query: Tensor, *args: Any, dropout: float = 0.0, **kwargs: Any) -> tuple[Tensor, Any]:
        if kernel is SDPBackend.FLASH_ATTENTION and query.device.type == "cpu" and dropout:
            raise Unsupported(f"{name} on a CPU needs attention without dropout; it is {dropout:g}")
        try:
            with sdpa_kernel(kernel):
                return sdpa_attention_forward(module, query, *args, dropout=dropout, **kwargs)  # type: ignore[no-any-return]
        except RuntimeError as error:
            # Whether a kernel exists depends on types, masks and shapes, which are known only here.
            if "No available kernel" not in str(error) and "No viable backend" not in str(error):
                raise
            seen = f"{query.dtype} of head size {query.shape[-1]}".removeprefix("torch.")
            raise Unsupported(
                f"{name} has no kernel for this model's attention, {seen}, dropout {dropout:g}"
            ) from error

    # If the name had "flash" in it, transformers would take it for the package flash-attn, which makes other masks.
    implementation = f"sdpa_kernel_{kernel.value}"
    AttentionInterface.register(implementation, attend)
    AttentionMaskInterface.register(implementation, sdpa_mask)
    return _use(setup, name, implementation)


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    slot="attention",
    source="https://huggingface.co/docs/transformers/main/en/attention_interface",
    code=Code(model=('model.set_attn_implementation("eager")',)),
)
def attention_eager(setup: TrainingSetup) -> TrainingSetup:
    """Attention is two plain matrix products with a softmax between them, each with its result in memory."""
    return _use(setup, "attention_eager", "eager")


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    # Inductor recognises the operations of the fallback, and fuses them into the very kernel that they replace.
    excludes={"compile"},
    slot="attention",
    source=SDPA_DOCS,
    code=_only("math"),
)
def sdpa_math(setup: TrainingSetup) -> TrainingSetup:
    """Attention always runs PyTorch's unfused fallback, even if a fused kernel would fit."""
    return _use_kernel(setup, "sdpa_math", SDPBackend.MATH)


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    slot="attention",
    source="https://arxiv.org/abs/2307.08691",
    code=_only("flash"),
)
def sdpa_flash(setup: TrainingSetup) -> TrainingSetup:
    """Attention always runs FlashAttention, which never holds the whole matrix of scores in memory.

    On a GPU it takes half precision only; on a CPU no dropout.
    """
    return _use_kernel(setup, "sdpa_flash", SDPBackend.FLASH_ATTENTION)


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    slot="attention",
    needs=[gpu()],
    source="https://arxiv.org/abs/2112.05682",
    code=_only("mem_efficient"),
)
def sdpa_efficient(setup: TrainingSetup) -> TrainingSetup:
    """Attention always runs the memory-efficient kernel, which takes float32 and masks too."""
    return _use_kernel(setup, "sdpa_efficient", SDPBackend.EFFICIENT_ATTENTION)


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    slot="attention",
    needs=[gpu((8, 0), "an Ampere or newer GPU")],
    source="https://docs.nvidia.com/deeplearning/cudnn/frontend/latest/operations/Attention.html",
    code=_only("cudnn"),
)
def sdpa_cudnn(setup: TrainingSetup) -> TrainingSetup:
    """Attention always runs cuDNN's kernel; it takes half precision only."""
    return _use_kernel(setup, "sdpa_cudnn", SDPBackend.CUDNN_ATTENTION)


@technique(
    stage=Stage.NUMERICS,
    changes={Change.NUMERICS},
    slot="attention",
    needs=[compiler],
    phases=EVERY_PHASE,
    source="https://arxiv.org/abs/2412.05496",
    code=Code(model=('model.set_attn_implementation("flex_attention")',)),
)
def flex_attention(setup: TrainingSetup) -> TrainingSetup:
    """Attention is a kernel that torch.compile writes for this model's mask; the rest of the model is not compiled."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.flex_attention import flex_attention_forward
    from transformers.masking_utils import flex_attention_mask

    if setup.device.type == "cpu" and setup.workload.phase is not Phase.INFER:
        raise Unsupported("flex_attention on a CPU has no backward pass: it runs in inference only")

    def attend(*args: Any, dropout: float = 0.0, **kwargs: Any) -> tuple[Tensor, Any]:
        if dropout:
            raise Unsupported(f"flex_attention needs attention without dropout; it is {dropout:g}")
        return flex_attention_forward(*args, dropout=dropout, **kwargs)  # type: ignore[no-any-return]

    AttentionInterface.register("checked_flex_attention", attend)
    AttentionMaskInterface.register("checked_flex_attention", flex_attention_mask)
    return _use(setup, "flex_attention", "checked_flex_attention")
