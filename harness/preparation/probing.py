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
"""A model is tried on so many real samples: on one, layers that look across a batch fail."""


LARGE = 200_000_000
"""Parameters from which on a model is not built to be tried, if fake tensors have shown that it trains: it would take
the memory and the seconds that the measured processes take too."""


def probe_workload(workload: Message, corpus: Message) -> Message:
    """Task: build the workload and take its loss once; count parameters and the FLOP of one update.

    Tokens are made here if they are not in the cache yet. Raises ValueError if the workload cannot train.
    """
    chosen = requested_workload({"workload": workload, "corpus": corpus})
    seen = _on_fakes(chosen, first_batch(chosen))
    # The models of families are known to train, and a fine-tuned one may not have its checkpoint yet. Of others fake
    # tensors show no token that a model does not know.
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
    """Of what the workload is: its counts, and the files that this process has built it from. Of a file of the user's
    that is itself and all it has imported from its repository; of a model folder its configuration, and what its
    weights' files are called and how long they are."""
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
    """By name, the files of the repository, or else the folder, that a file lies in, as far as they are imported. Our
    own packages measure, and are no part of what is measured."""
    top = next((folder for folder in file.parents if (folder / ".git").exists()), file.parent)
    found = {str(file.relative_to(top)): file}
    for name, where in imported():
        path = Path(where)
        if name.partition(".")[0] not in MEASURING and path.is_relative_to(top) and not is_installed(where):
            found[str(path.relative_to(top))] = path
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """`calls_model`: the loss calls the model that it is given, so that what wraps a model is called too."""

    parameters: int | None = None
    flops: float | None = None
    calls_model: bool = True


class _Wrapper(nn.Module):
    """As torch's wrappers are: it has the model's forward, and none of its other attributes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.called = module, False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.called = True
        return self.module(*args, **kwargs)


class _Flops(FlopCounterMode):
    """Counts the work of training, and not what activation checkpoints compute again in the backward pass.

    Backward functions run without gradients; what is computed with them while a backward pass lasts is a repetition.
    """

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        if torch._C._current_graph_task_id() != -1 and torch.is_grad_enabled():
            return out
        return super()._count_flops(func_packet, out, args, kwargs)  # type: ignore[no-untyped-call]


def _on_fakes(workload: Workload, real: Batch) -> _Seen | None:
    """What fake tensors show; None where a model needs data."""
    # Most operators know their shapes on a CPU; grouped products of float32, as experts are, on the meta device alone.
    for device in ("cpu", "meta"):
        with contextlib.suppress(Exception):  # A user's model may do what no fake tensor can.
            return _counted(workload, real, torch.device(device))
    return None


def _counted(workload: Workload, real: Batch, device: torch.device) -> _Seen:
    """Parameters, and FLOP of forward and backward (in the phase infer: of forward) of one global batch.

    By torch.utils.flop_counter: 2 m n k for each m x n x k matrix product, those inside attention included;
    element-wise work is not counted, and where there is nothing else the FLOP are unknown. Fake tensors have shapes and
    no data; attention is that of plain matrices, because the CPU's fused operator counts as zero
    (pytorch/pytorch#195460). Raises whatever a model raises that needs data.
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
    """Whether the loss needs nothing of a model but to call it: `model.training_step(batch)` passes a wrapper by."""
    if workload.loss is output_loss:
        return True
    wrapper = _Wrapper(model)
    try:
        workload.loss(wrapper, batch)
    except AttributeError:
        return False
    return wrapper.called


def _on_data(workload: Workload) -> _Seen:
    """Raises ValueError if the model gives no scalar loss with a gradient on real samples: a few, or a whole batch
    where the model takes no other."""
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
