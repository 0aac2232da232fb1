"""What a workload is, found out before anything is measured: whether it can train, how its loss calls the model, its
parameters and the FLOP of one update."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from bench.brought import TEMPLATE
from bench.causes import root_cause
from bench.setup import baseline
from bench.spec import Phase, WorkloadSpec
from bench.workload import Batch, Workload, first_batch, output_loss
from harness.evidence.provenance import MEASURING, imported, is_installed
from harness.message import Message
from harness.prediction.fakes import in_place_conversion
from harness.processes.worker import requested_workload

ENOUGH_SAMPLES = 2
"""A model is tried on this many real samples: on one, layers that look across a batch fail."""


LARGE = 200_000_000
"""Models with more parameters are not built to be tried, if fake tensors have shown that they train: that would take as
much memory and time as the measured processes need."""


def probe_workload(workload: Message, corpus: Message) -> Message:
    """Task: build the workload and take its loss once; count parameters and the FLOP of one update.

    Tokens are made here if they are not in the cache yet. Raises ValueError if the workload cannot train.
    """
    chosen = requested_workload({"workload": workload, "corpus": corpus})
    seen = _on_fakes(chosen, first_batch(chosen))
    # Models of families are known to train, and the checkpoint of a fine-tuned one may not exist yet. For other models,
    # fake tensors do not reveal tokens that are outside the vocabulary.
    if chosen.family is None and (seen is None or (seen.parameters or 0) < LARGE):
        found = _on_data(chosen)
        seen = seen or found
    seen = seen or _Seen()
    return {
        "batch": chosen.batch,
        "sequence": chosen.tokens_per_sample,
        "parameters": seen.parameters,
        "step_flops": seen.flops,
        "calls_model": seen.calls_model,
        "sha256": _sha256(WorkloadSpec.from_json(workload), seen),
    }


def _sha256(spec: WorkloadSpec, seen: _Seen) -> str:
    """The hash of what the workload is: its counts, and the files that this process built it from. For a user's file,
    that is the file and everything it imported from its repository; for a model folder, its configuration, and the
    names and sizes of its weight files."""
    found = hashlib.sha256(repr((seen.parameters, seen.flops)).encode())
    path = Path(spec.model.partition(".py:")[0].removesuffix(".py") + ".py")
    if path.is_file():
        for name, file in sorted(_own_modules(path.resolve()).items()):
            found.update(f"{name}\n".encode() + file.read_bytes())
    elif Path(spec.model).is_dir():
        for file in sorted(Path(spec.model).iterdir()):
            size = file.stat().st_size
            found.update(f"{file.name} {size}\n".encode() + (file.read_bytes() if file.suffix == ".json" else b""))
    return found.hexdigest()


def _own_modules(file: Path) -> dict[str, Path]:
    """By name, the imported files of the repository (or else the folder) that a file lies in. Our own packages do the
    measuring and do not count."""
    top = next((folder for folder in file.parents if (folder / ".git").exists()), file.parent)
    found = {str(file.relative_to(top)): file}
    for name, where in imported():
        path = Path(where)
        if name.partition(".")[0] not in MEASURING and path.is_relative_to(top) and not is_installed(where):
            found[str(path.relative_to(top))] = path
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """`calls_model`: the loss calls the model that it is given, so that a wrapper around a model is called too."""

    parameters: int | None = None
    flops: float | None = None
    calls_model: bool = True


class _Wrapper(nn.Module):
    """Like torch's wrappers: it has the model's forward, and none of its other attributes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.called = module, False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.called = True
        return self.module(*args, **kwargs)


class _Flops(FlopCounterMode):
    """Counts the work of training, without what activation checkpoints recompute in the backward pass.

    Backward functions run without gradients; whatever runs with gradients during a backward pass is a recomputation.
    """

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        if torch._C._current_graph_task_id() != -1 and torch.is_grad_enabled():
            return out
        return super()._count_flops(func_packet, out, args, kwargs)  # type: ignore[no-untyped-call]


def _on_fakes(workload: Workload, real: Batch) -> _Seen | None:
    """What fake tensors show; None if a model needs data."""
    # Most operators know their shapes on a CPU; grouped float32 products, as in experts, only do on the meta device.
    for device in ("cpu", "meta"):
        with contextlib.suppress(Exception):  # A user's model may do what no fake tensor can.
            return _counted(workload, real, torch.device(device))
    return None


def _counted(workload: Workload, real: Batch, device: torch.device) -> _Seen:
    """Parameters, and FLOP of forward and backward (in the phase infer: of forward) of one global batch.

    Counted by torch.utils.flop_counter: 2 m n k for each m x n x k matrix product, including those inside attention.
    Element-wise work is not counted, and if there is nothing else the FLOP are unknown. Fake tensors have shapes but no
    data; attention uses plain matrices, because the CPU's fused operator counts as zero (pytorch/pytorch#195460).
    Raises whatever a model that needs data raises.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), in_place_conversion(), device, sdpa_kernel(SDPBackend.MATH):
        batch = tree_map_only(Tensor, lambda item: torch.empty(item.shape, dtype=item.dtype), real)
        setup = baseline(workload, device)
        calls_model = _calls_model(workload, setup.model, batch)
        with _Flops(display=False) as counter:
            loss = setup.loss(setup.model, batch)
            if workload.phase is not Phase.INFER:
                loss.backward()
    parameters = sum(item.numel() for item in setup.model.parameters())
    return _Seen(parameters=parameters, flops=float(counter.get_total_flops()) or None, calls_model=calls_model)


def _of_what(workload: Workload) -> str:
    text = workload.text
    if text is None:
        return f" of {workload.tokens_per_sample} tokens a sample" if workload.tokens_per_sample else ""
    return f" of text, whose tokens are below {text.vocabulary.size} and {text.sequence} a sample (see --sequence)"


def _calls_model(workload: Workload, model: nn.Module, batch: Batch) -> bool:
    """Whether all that the loss needs is to call the model: `model.training_step(batch)` would bypass a wrapper."""
    if workload.loss is output_loss:
        return True
    wrapper = _Wrapper(model)
    try:
        workload.loss(wrapper, batch)
    except AttributeError:
        return False
    return wrapper.called


def _on_data(workload: Workload) -> _Seen:
    """Try real samples: a few, or a whole batch if the model accepts nothing else. Raises ValueError if the model gives
    no scalar loss with a gradient."""
    setup = baseline(workload, torch.device("cpu"))
    try:
        try:
            batch = first_batch(workload, min(ENOUGH_SAMPLES, workload.batch))
            loss = setup.loss(setup.model, batch)
        except Exception:
            setup = baseline(workload, torch.device("cpu"))
            batch = first_batch(workload)
            loss = setup.loss(setup.model, batch)
    except AttributeError as error:
        raise ValueError(
            f"model {workload.name!r} gives no loss ({error}): let its forward take input_ids and labels and return "
            f"an object with .loss, or say what the loss is, as in\n\n{TEMPLATE}"
        ) from error
    except Exception as error:
        raise ValueError(
            f"model {workload.name!r} fails on a batch{_of_what(workload)}: {root_cause(error)}"
        ) from error
    if loss.dim() or not (loss.requires_grad or workload.phase is Phase.INFER):
        what = f"a tensor of shape {tuple(loss.shape)}" if loss.dim() else "a number without gradient"
        otherwise = f", or say what the loss is, as in\n\n{TEMPLATE}" if workload.loss is output_loss else ""
        raise ValueError(f"model {workload.name!r} gives {what} as loss: give a scalar with a gradient{otherwise}")
    return _Seen(
        parameters=sum(item.numel() for item in setup.model.parameters()),
        calls_model=_calls_model(workload, setup.model, batch),
    )
