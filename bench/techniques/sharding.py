"""Ranks that share out what each would otherwise hold whole: optimizer state, parameters, single layers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module
from torch.optim import Optimizer

from bench.registry import ALL
from bench.script.code import Code
from bench.setup import TrainingSetup, Unsupported
from bench.techniques._blocks import blocks
from bench.techniques._conv1d import conv1d_to_linear
from bench.techniques._joint import as_groups, as_parameters
from bench.techniques._ranks import agreeing_on_overflow, grouped_by_mesh, uncompiled
from bench.techniques.distributed import data_parallel, distribute

UNSPLITTABLE = {
    # A masked or quantized weight is computed in each forward, and is no parameter that could be split.
    "prune_magnitude_50",
    "quantization",
    # GradScaler divides all gradients in one call, and torch does not mix those that are split with those that are not.
    "amp_fp16",
}

ATTENTION = {
    "c_proj": ("c_attn",),
    "output.dense": ("self.query", "self.key", "self.value"),
    "dense": ("query", "key", "value"),
    "out_lin": ("q_lin", "k_lin", "v_lin"),
    "o_proj": ("q_proj", "k_proj", "v_proj"),
}
"""The layer that mixes an attention block's heads and those that make them, as transformers names them."""

FUSED = 3
"""Queries, keys and values come out of GPT-2's one layer."""

FEED_FORWARD = {
    "c_proj": ("c_fc",),
    "output.dense": ("intermediate.dense",),
    "ffn_output": ("ffn",),
    "lin2": ("lin1",),
    "fc2": ("fc1",),
    "down_proj": ("gate_proj", "up_proj"),
}
"""The layer that reads a feed-forward block's inner width and those that make it."""


@distribute(ranks=ALL, source="https://arxiv.org/abs/1910.02054")
def zero_1(setup: TrainingSetup) -> TrainingSetup:
    """Each rank keeps the optimizer state of some parameters, updates those and sends them to the others."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    def part(groups: Iterable[nn.Parameter]) -> Optimizer:
        listed = as_groups(groups)
        optimizer = setup.optimizer(as_parameters(listed))
        if len(optimizer.param_groups) != len(listed):
            raise Unsupported("zero_1 splits an optimizer that has one rule; this one makes its own parameter groups")
        return optimizer

    def sharded(parameters: Iterable[nn.Parameter]) -> Optimizer:
        kind: Any = part  # Any factory will do.
        optimizer: Optimizer = ZeroRedundancyOptimizer(parameters, optimizer_class=kind)
        # The state that there is: the wrapper's own stays empty.
        optimizer.state = optimizer.optim.state  # type: ignore[attr-defined]
        return optimizer

    return replace(data_parallel(setup), optimizer=sharded)


@distribute(
    ranks=ALL,
    source="https://arxiv.org/abs/2304.11277",
    code=Code(
        imports=(
            "from torch.distributed.device_mesh import init_device_mesh",
            "from torch.distributed.fsdp import fully_shard",
        ),
        ranks=(
            "mesh = init_device_mesh(DEVICE, (RANKS,))",
            "for block in dict.fromkeys({blocks}):",
            "    fully_shard(block, mesh=mesh)",
            "fully_shard(model, mesh=mesh)",
        ),
        part=("model.set_requires_gradient_sync(part is parts[-1])",),
        # The ranks of a scaled loss have to agree on an overflow; a compiled model is sharded before it is compiled.
        apart={"amp_fp16", "compile"},
    ),
)
def fsdp2(setup: TrainingSetup) -> TrainingSetup:
    """Each rank keeps a shard of every parameter; a layer's parameters are gathered when it runs, then dropped."""
    mesh = init_device_mesh(setup.device.type, (setup.world_size,))
    return _fully_sharded(setup, mesh)


def _fully_sharded(setup: TrainingSetup, mesh: DeviceMesh) -> TrainingSetup:
    from torch.distributed.fsdp import FSDPModule, fully_shard

    model = uncompiled(setup.model)
    for block in dict.fromkeys(blocks(model)):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert isinstance(model, FSDPModule)

    @contextlib.contextmanager
    def no_sync() -> Iterator[None]:
        model.set_requires_gradient_sync(False)
        yield
        model.set_requires_gradient_sync(True)

    return agreeing_on_overflow(replace(setup, no_sync=no_sync))


@distribute(
    ranks=ALL,
    replicas=1,
    excludes=UNSPLITTABLE,
    source="https://arxiv.org/abs/1909.08053",
)
def tensor_parallel(setup: TrainingSetup) -> TrainingSetup:
    """Each rank keeps its share of the attention heads and of the feed-forward width of every layer."""
    return _tensor_parallel(setup, init_device_mesh(setup.device.type, (setup.world_size,)))


@distribute(
    ranks=4,
    replicas=2,
    excludes=UNSPLITTABLE,
    source="https://arxiv.org/abs/2410.06511",
)
def fsdp2_tensor_parallel(setup: TrainingSetup) -> TrainingSetup:
    """Two ranks split every layer between them; two such pairs, each with half the batch, shard what is left."""
    mesh = init_device_mesh(setup.device.type, (2, 2), mesh_dim_names=("data", "tensor"))
    return _fully_sharded(_tensor_parallel(setup, mesh["tensor"]), mesh["data"])


def _tensor_parallel(setup: TrainingSetup, mesh: DeviceMesh) -> TrainingSetup:
    model = uncompiled(setup.model)
    conv1d_to_linear(model)
    modules = list(model.modules())
    for kind, known in (("attention", ATTENTION), ("feed-forward", FEED_FORWARD)):
        if not sum(_split(module, known, mesh) for module in modules):
            name = type(model).__name__
            raise Unsupported(f"tensor_parallel needs a model whose {kind} layers it knows how to split; not {name}")
    return agreeing_on_overflow(replace(setup, optimizer=grouped_by_mesh(setup.optimizer)))


def _split(module: nn.Module, known: Mapping[str, Sequence[str]], mesh: DeviceMesh) -> bool:
    """Share a block out over the ranks if it is of a known kind; whether it is one."""
    for output, inputs in known.items():
        if all(_has_linear(module, path) for path in (output, *inputs)):
            _check_divides(module, [module.get_submodule(path) for path in inputs], mesh.size())
            if inputs == ("c_attn",):
                _interleave(module, mesh.size())
            plan: dict[str, ParallelStyle] = dict.fromkeys(inputs, ColwiseParallel()) | {output: RowwiseParallel()}
            parallelize_module(module, mesh, plan)
            return True
    return False


def _has_linear(module: nn.Module, path: str) -> bool:
    try:
        return type(module.get_submodule(path)) is nn.Linear
    except AttributeError:
        return False


def _check_divides(module: nn.Module, inputs: Sequence[nn.Module], ranks: int) -> None:
    holders = (module, getattr(module, "self", None))
    sizes = (getattr(holder, name, None) for holder in holders for name in ("head_dim", "attention_head_size"))
    size = next((size for size in sizes if size is not None), 1)
    for layer in inputs:
        blocks = FUSED if layer is getattr(module, "c_attn", None) else 1
        units = layer.get_parameter("weight").shape[0] // (blocks * size)
        if units % ranks:
            what = "attention heads" if size > 1 else "columns of a layer"
            raise Unsupported(f"tensor_parallel splits {what} over {ranks} ranks, and needs a multiple; it is {units}")


def _interleave(attention: nn.Module, ranks: int) -> None:
    """Order the rows of GPT-2's fused queries, keys and values so that each rank's share holds its heads' of each."""
    layer = attention.get_submodule("c_attn")
    for parameter in layer.parameters():
        parts = parameter.detach().unflatten(0, (FUSED, ranks, -1))
        parameter.data = parts.transpose(0, 1).flatten(0, 2).contiguous()
    attention.split_size = attention.split_size // ranks  # type: ignore[operator,assignment]  # torch knows tensors and modules only
