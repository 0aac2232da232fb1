"""Several ranks: each technique does the baseline's work, and stores, sends and waits as declared."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.autograd.profiler import profile
from torch.distributed.tensor import DTensor

from bench.composition import compose, ranks, unmet
from bench.corpus import Corpus
from bench.dropout import set_dropout
from bench.host import RANKS, Host
from bench.resolve import resolve
from bench.setup import TrainingSetup, baseline
from bench.spec import Plan, WorkloadSpec
from harness.heats import conformance
from harness.heats.sweep import Sweep
from harness.preparation.prepared import prepare
from harness.processes.fork_server import ForkServer
from harness.record import Record, Status
from harness.timing.trainer import Trainer
from tests.conftest import LEAST
from tests.training import apply

Run = Callable[..., tuple[Any, list[Record]]]
Ranks = Callable[..., list[Any]]

ON_TWO_RANKS = (
    "ddp_2",
    "ddp_bucket_mb_1",
    "ddp_bucket_mb_100",
    "ddp_bucket_view",
    "ddp_static_graph",
    "zero_1",
    "fsdp2",
    "tensor_parallel",
    "pipeline_gpipe",
    "pipeline_1f1b",
    "model_split",
    "local_sgd_4",
    "parameter_server",
)
ON_FOUR_RANKS = ("ddp_4", "fsdp2_tensor_parallel")


OWN_GRADIENTS = ("local_sgd_4",)
"""Techniques that train each rank only on its share of the batch."""


def _assert_certified(records: list[Record], names: tuple[str, ...], world_size: int) -> None:
    found = {record.techniques: (record.status, record.reason, record.world_size) for record in records}
    assert found == {"fp32": (Status.OK, None, 1)} | dict.fromkeys(names, (Status.OK, None, world_size))
    norms = {record.techniques: record.certificate and record.certificate.gradient_norm for record in records}
    for record in records:
        if not record.changes and record.techniques not in OWN_GRADIENTS:
            # However parameters, samples and layers are distributed over the ranks.
            assert norms[record.techniques] == pytest.approx(norms["fp32"], rel=1e-3), record.techniques


@pytest.mark.long
@pytest.mark.parametrize("model", ["gpt2/nano", "bert/nano"])
def test_every_way_to_use_two_ranks_does_the_same_work(sweep: Run, model: str) -> None:
    _, records = sweep(*((name,) for name in ON_TWO_RANKS), models=(model,), protocol=LEAST)
    _assert_certified(records, ON_TWO_RANKS, world_size=2)


@pytest.mark.long
@pytest.mark.parametrize("model", ["gpt2/nano", "bert/nano"])
def test_four_ranks_do_the_same_work(sweep: Run, model: str) -> None:
    _, records = sweep(*((name,) for name in ON_FOUR_RANKS), models=(model,), protocol=LEAST)
    _assert_certified(records, ON_FOUR_RANKS, world_size=4)


def test_sixteen_ranks_do_the_same_work(fork_server: ForkServer, text_folder: Path, tmp_path: Path) -> None:
    spec = WorkloadSpec(model="gpt2/nano", batch=16, sequence=32, corpus=str(text_folder))
    plan = Plan(
        name="sixteen",
        workloads=(spec,),
        compositions=(("ddp_16",),),
        device="cpu",
        repetitions=1,
        protocol=conformance.PROTOCOL,
    )
    found = prepare(plan, fork_server)
    # A user's run on so few cores refuses them because they would be slow; here the times do not matter.
    ready = replace(found, host=replace(found.host, cores=8), unsupported={})
    records: list[Record] = []
    Sweep(ready, run_id="sixteen", keep=records.append, choose=lambda _: [], log=tmp_path / "log").run(fork_server)
    _assert_certified(records, ("ddp_16",), world_size=16)


@pytest.mark.long
@pytest.mark.parametrize("name", ["fsdp2", "tensor_parallel", "pipeline_1f1b", "zero_1", "parameter_server"])
def test_ranks_compose_with_what_changes_the_step(sweep: Run, name: str) -> None:
    autocast = f"{name}+amp_bf16+accumulate_2+checkpoint_activations+adamw_fused"
    plain = f"{name}+pure_bf16+adamw_foreach+schedule_cosine"
    _, records = sweep(tuple(autocast.split("+")), tuple(plain.split("+")), protocol=LEAST)
    _assert_certified(records, (autocast, plain), world_size=2)


def test_ranks_are_as_many_as_the_name_says() -> None:
    here, large = Host(device="cpu", cores=2), Host(device="cuda", gpus=8, capability=(9, 0))
    assert [ranks(compose([f"ddp_{count}"]), here).count for count in RANKS] == list(RANKS)
    assert "needs 8 ranks" in str(unmet(compose(["ddp_8"]), here))
    assert ranks(compose(["fsdp2"]), large).count == 8
    assert ranks(compose(["pipeline_gpipe"]), large).replicas == 1


def _join(numbers: Any, store: str, port: int) -> None:
    torch.set_num_threads(1)
    # The rendezvous for calls between ranks, apart from the process group.
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=numbers.get(), world_size=2)


def _on_this_rank(probe: Callable[..., Any], corpus: Corpus, names: tuple[str, ...], model: str) -> tuple[int, Any]:
    torch.manual_seed(0)
    workload = resolve(WorkloadSpec(model=model, batch=8, sequence=32), corpus)
    rank = distributed.get_rank()
    replicas = ranks(compose(names), Host(device="cpu")).replicas
    setup = baseline(workload, torch.device("cpu"), rank=rank, world_size=2, replicas=replicas)
    set_dropout(setup.model, 0.0)
    return rank, probe(apply(setup, *names))


@pytest.fixture(scope="module")
def on_ranks(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Build a composition on two ranks and return what a probe of it answers on each, first rank first."""
    context = multiprocessing.get_context("spawn")
    numbers, store = context.SimpleQueue(), tmp_path_factory.mktemp("ranks") / "store"
    for rank in range(2):
        numbers.put(rank)
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    with ProcessPoolExecutor(2, context, _join, (numbers, str(store), port)) as pool:

        def run(probe: Callable[[TrainingSetup], Any], *names: str, model: str = "gpt2/nano") -> list[Any]:
            answers = [pool.submit(_on_this_rank, probe, corpus, names, model) for _ in range(2)]
            return [answer for _, answer in sorted(future.result(timeout=60) for future in answers)]

        yield run


def _gradients(setup: TrainingSetup) -> dict[str, torch.Tensor]:
    """The gradients of the first update by name, each with its elements sorted."""
    trainer, seen = Trainer(setup, seed=0), {}
    parameters = dict(setup.model.named_parameters())

    def look(*_: object) -> None:
        for name, parameter in parameters.items():
            gradient = parameter.grad
            whole = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
            assert whole is not None
            # Layers may store the same numbers transposed, or in another order.
            seen[name.removeprefix("module.")] = whole.flatten().sort().values

    assert trainer.optimizer is not None
    trainer.optimizer.register_step_pre_hook(look)
    trainer.steps(1)
    return seen


@pytest.mark.parametrize("model", ["gpt2/nano", "bert/nano"])
@pytest.mark.parametrize("name", [name for name in ON_TWO_RANKS if name != "local_sgd_4"])
def test_gradients_are_those_of_the_whole_batch(on_ranks: Ranks, name: str, model: str) -> None:
    whole = on_ranks(_gradients, model=model)[0]
    found = on_ranks(_gradients, name, model=model)
    if name == "parameter_server":
        found = found[:1]  # The other ranks send theirs and do not use them.
    assert set().union(*found) == whole.keys()
    for rank in found:
        for key, gradient in rank.items():
            torch.testing.assert_close(gradient, whole[key], rtol=1e-3, atol=1e-6)


def _held(setup: TrainingSetup) -> dict[str, int]:
    """The number of elements of each parameter on this rank."""
    local = ((name, getattr(item, "_local_tensor", item)) for name, item in setup.model.named_parameters())
    return {name.removeprefix("module."): tensor.numel() for name, tensor in local}


@pytest.mark.parametrize("model", ["gpt2/nano", "bert/nano"])
def test_fsdp2_leaves_half_of_every_parameter_on_each_rank(on_ranks: Ranks, model: str) -> None:
    whole = on_ranks(_held, model=model)[0]
    first, second = on_ranks(_held, "fsdp2", model=model)
    assert {name: first[name] + second[name] for name in whole} == whole
    assert abs(sum(first.values()) - sum(second.values())) < 0.01 * sum(whole.values())


@pytest.mark.parametrize(
    ("model", "split", "kept"),
    [
        (
            "gpt2/nano",
            ["c_attn.weight", "attn.c_proj.weight", "c_fc.bias", "mlp.c_proj.weight"],
            "ln_1.weight",
        ),
        (
            "bert/nano",
            ["attention.self.query.weight", "attention.output.dense.weight", "intermediate.dense.weight"],
            "output.LayerNorm.weight",
        ),
    ],
)
def test_tensor_parallel_splits_both_parts_of_a_layer(on_ranks: Ranks, model: str, split: list[str], kept: str) -> None:
    whole = on_ranks(_held, model=model)[0]
    for rank in on_ranks(_held, "tensor_parallel", model=model):
        shares = {name: rank[name] / count for name, count in whole.items()}
        assert {share for name, share in shares.items() if name.endswith(tuple(split))} == {0.5}
        assert {share for name, share in shares.items() if name.endswith(kept)} == {1}


@pytest.mark.parametrize("model", ["gpt2/nano", "bert/nano"])
def test_a_pipeline_leaves_each_layer_on_one_rank(on_ranks: Ranks, model: str) -> None:
    whole = on_ranks(_held, model=model)[0]
    first, last = on_ranks(_held, "pipeline_gpipe", model=model)
    # The output head is tied to the input embedding, so both ends need it.
    shared = {name for name in whole if "wte" in name or "word_embeddings" in name}
    assert first.keys() & last.keys() == shared
    assert first | last == whole
    positions = {name for name in whole if "wpe" in name or "position_embeddings" in name}
    assert positions < first.keys()


def _most_in_flight(setup: TrainingSetup) -> int:
    """The most micro-batches in flight on this rank: run forward but not yet backward."""
    flying = most = 0

    def forward(*_: object) -> None:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)

    def backward(*_: object) -> None:
        nonlocal flying
        flying -= 1

    trainer = Trainer(setup, seed=0)
    setup.model.register_forward_pre_hook(forward)
    norm = next(item for name, item in setup.model.named_modules() if name.endswith("ln_1"))
    norm.register_full_backward_hook(backward)
    trainer.steps(1)
    return most


@pytest.mark.parametrize(
    ("name", "in_flight"), [("pipeline_gpipe", [4, 4]), ("pipeline_1f1b", [2, 1]), ("model_split", [1, 1])]
)
def test_schedules_keep_as_many_micro_batches_as_they_say(on_ranks: Ranks, name: str, in_flight: list[int]) -> None:
    assert on_ranks(_most_in_flight, name) == in_flight


def _state_after_a_step(setup: TrainingSetup) -> int:
    trainer = Trainer(setup, seed=0)
    trainer.steps(1)
    assert trainer.optimizer is not None
    state = trainer.optimizer.state.values()
    return sum(item.numel() for entry in state for item in entry.values() if isinstance(item, torch.Tensor))


def test_zero_1_shares_out_the_optimizer_state(on_ranks: Ranks) -> None:
    whole = on_ranks(_state_after_a_step, "ddp_2")[0]
    first, second = on_ranks(_state_after_a_step, "zero_1")
    assert first + second == whole
    assert 0.4 * whole < first < 0.6 * whole


def _size_after_each_step(setup: TrainingSetup) -> list[float]:
    trainer = Trainer(setup, seed=0)
    sizes = []
    for _ in range(6):
        trainer.steps(1)
        sizes.append(float(sum((item.double().square().sum() for item in setup.model.parameters()), torch.zeros(()))))
    return sizes


def test_local_sgd_averages_every_fourth_update(on_ranks: Ranks) -> None:
    first, second = on_ranks(_size_after_each_step, "local_sgd_4")
    assert [one == other for one, other in zip(first, second, strict=True)] == [True, False, False, False, True, False]


def _all_reduces(setup: TrainingSetup) -> int:
    trainer = Trainer(setup, seed=0)
    trainer.steps(3)
    with profile(use_kineto=False) as seen:
        trainer.steps(1)
    return sum(event.name == "gloo:all_reduce" for event in seen.function_events or [])


def test_smaller_buckets_are_sent_more_often(on_ranks: Ranks) -> None:
    small, large = (on_ranks(_all_reduces, f"ddp_bucket_mb_{size}", model="gpt2/tiny")[0] for size in (1, 100))
    assert large == 1
    assert small > 2


def _gradients_share_memory(setup: TrainingSetup) -> bool:
    trainer = Trainer(setup, seed=0)
    seen: list[int] = []
    assert trainer.optimizer is not None
    gradients = (item.grad for item in setup.model.parameters())
    trainer.optimizer.register_step_pre_hook(
        lambda *_: seen.extend(item.untyped_storage().data_ptr() for item in gradients if item is not None)
    )
    trainer.steps(1)
    return len(set(seen)) < len(seen)


@pytest.mark.parametrize(("name", "shared"), [("ddp_2", False), ("ddp_bucket_view", True)])
def test_bucket_views_save_the_gradients_own_memory(on_ranks: Ranks, name: str, shared: bool) -> None:
    assert on_ranks(_gradients_share_memory, name) == [shared, shared]
