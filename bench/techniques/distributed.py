"""Data parallel ranks: each has the whole model and a share of the batch, and gradients are averaged as they are made.

DistributedDataParallel with its defaults, and with each of its settings changed by itself.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from bench.host import RANKS, gpu
from bench.registry import ALL, Change, Stage, technique
from bench.script.code import Code
from bench.setup import TrainingSetup

DDP_DOCS = "https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html"
HOOK_DOCS = "https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html"

distribute = partial(technique, stage=Stage.DISTRIBUTE, slot="distribute")
on_all_ranks = partial(distribute, ranks=ALL)


def _written(*options: str, imports: tuple[str, ...] = (), then: tuple[str, ...] = (), **elsewhere: Any) -> Code:
    return Code(
        imports=("from torch.nn.parallel import DistributedDataParallel", *imports),
        ranks=(f"model = DistributedDataParallel({', '.join(['model', *options])})", *then),
        part=("with contextlib.nullcontext() if part is parts[-1] else model.no_sync():",),
        **elsewhere,
    )


def data_parallel(setup: TrainingSetup, **options: Any) -> TrainingSetup:
    """The setup whose model is wrapped by DistributedDataParallel."""
    devices = [setup.device] if setup.device.type == "cuda" else None
    options = {"find_unused_parameters": setup.workload.find_unused_parameters, **options}
    model = DistributedDataParallel(setup.model, device_ids=devices, **options)
    return replace(setup, model=model, no_sync=model.no_sync)


@distribute(
    values=RANKS,
    ranks=int,
    source="https://arxiv.org/abs/2006.15704",
    code=_written(lightning={"strategy": "ddp", "devices": "{value}"}),
)
def ddp(setup: TrainingSetup, ranks: int) -> TrainingSetup:
    """{value} processes with an equal share of the batch each; DistributedDataParallel averages their gradients."""
    return data_parallel(setup)


@on_all_ranks(
    values=(1, 100),
    source=DDP_DOCS,
    code=_written("bucket_cap_mb={value}", trainer={"ddp_bucket_cap_mb": "{value}"}),
)
def ddp_bucket_mb(setup: TrainingSetup, megabytes: int) -> TrainingSetup:
    """DistributedDataParallel sends gradients once {value} MB of them are ready, instead of its default of 25 MB."""
    return data_parallel(setup, bucket_cap_mb=megabytes)


@on_all_ranks(
    source=DDP_DOCS,
    code=_written("gradient_as_bucket_view=True"),
)
def ddp_bucket_view(setup: TrainingSetup) -> TrainingSetup:
    """Gradients live in the buckets that DistributedDataParallel sends, which saves a copy of all of them."""
    return data_parallel(setup, gradient_as_bucket_view=True)


@on_all_ranks(
    source=DDP_DOCS,
    code=_written("static_graph=True", trainer={"ddp_static_graph": True}),
)
def ddp_static_graph(setup: TrainingSetup) -> TrainingSetup:
    """DistributedDataParallel is told that every update uses the same parameters, and plans its buckets for that."""
    return data_parallel(setup, static_graph=True)


@on_all_ranks(
    changes={Change.NUMERICS},
    # torch refuses this hook without NCCL.
    needs=[gpu(what="GPUs, between which NCCL sends bfloat16")],
    source=HOOK_DOCS,
    code=_written(
        imports=("from torch.distributed.algorithms.ddp_comm_hooks import default_hooks",),
        then=("model.register_comm_hook(None, default_hooks.bf16_compress_hook)",),
    ),
)
def ddp_bf16_hook(setup: TrainingSetup) -> TrainingSetup:
    """Gradients travel between the ranks as bfloat16, which is half the bytes, and are float32 again for the update."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

    setup = data_parallel(setup)
    assert isinstance(setup.model, DistributedDataParallel)
    setup.model.register_comm_hook(None, bf16_compress_hook)
    return setup
