"""The work certificate catches unequal work, and accepts declared differences."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

from bench.dropout import set_dropout
from bench.registry import OTHER_NUMERICS, Change
from bench.setup import baseline
from bench.workload import Workload
from harness.evidence.certificate import merge
from harness.evidence.equal_work import losses_unknown, unequal_work
from harness.evidence.kernels import attention_kernels, cuda_graph_launches
from harness.evidence.replay import Observer
from harness.evidence.witness import Witness
from harness.record import WorkCertificate
from harness.timing.trainer import Trainer
from tests.training import apply

HONEST = WorkCertificate(
    parameters=100,
    trained_parameters=100,
    updates=10,
    skipped_updates=0,
    tensors=4,
    moved_tensors=4,
    movement_rms=1e-3,
    weight_dtypes=["float32"],
    state_dtypes=["float32"],
    samples_per_update=8.0,
    tokens_per_update=256.0,
    padded_tokens_per_update=0.0,
    replayed_updates=3,
    gradient_dtypes=["float32"],
    first_losses=[5.5, 5.4, 5.3],
)


def test_equal_work_is_equal() -> None:
    assert unequal_work(HONEST, HONEST, set()) == []


@pytest.mark.parametrize(
    ("field", "value", "excuse"),
    [
        ("updates", 0, None),
        ("moved_tensors", 0, None),
        ("moved_tensors", 3, Change.TRAINED_PARAMETERS),
        ("moved_tensors", 3, Change.NUMERICS),
        ("parameters", 90, Change.ARCHITECTURE),
        ("trained_parameters", 50, Change.TRAINED_PARAMETERS),
        ("samples_per_update", 4.0, Change.BATCH_SIZE),
        ("tokens_per_update", 128.0, Change.DATA_ORDER),
        ("weight_dtypes", ["bfloat16"], Change.NUMERICS),
        ("first_losses", [5.5, 5.4, 5.32], Change.NUMERICS),
        ("first_losses", [5.5, 5.0, 4.0], Change.UPDATE_RULE),
        ("first_losses", [4.5, 5.4, 5.3], Change.OBJECTIVE),
        ("first_losses", [5.5, 5.5, 5.5], None),
        ("first_losses", [5.5, float("nan"), 5.3], None),
    ],
)
def test_each_difference_is_caught_unless_declared(field: str, value: object, excuse: Change | None) -> None:
    arm = dataclasses.replace(HONEST, **{field: value})  # type: ignore[arg-type]
    assert len(unequal_work(arm, HONEST, set())) == 1
    everything = set(Change)
    if excuse is None:
        assert unequal_work(arm, HONEST, everything)
    else:
        assert unequal_work(arm, HONEST, {excuse}, OTHER_NUMERICS) == []


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_losses_are_compared_by_what_they_are(scale: float) -> None:
    reference = dataclasses.replace(HONEST, first_losses=[scale * loss for loss in (1.0, 0.5, 0.0)])
    same = dataclasses.replace(HONEST, first_losses=[scale * loss for loss in (1.0, 0.5002, 0.0001)])
    quarter = dataclasses.replace(HONEST, first_losses=[scale * loss for loss in (0.25, 0.125, 0.0)])
    assert unequal_work(same, reference, set()) == []
    assert "losses differ" in unequal_work(quarter, reference, set())[0]
    assert "losses differ" in unequal_work(quarter, reference, {Change.NUMERICS}, OTHER_NUMERICS)[0]


def test_what_the_baseline_does_not_repeat_nobody_has_to() -> None:
    arm = dataclasses.replace(HONEST, first_losses=[5.5, 5.2, 5.1])
    exact = dataclasses.replace(HONEST, repeated_losses=HONEST.first_losses)
    noisy = dataclasses.replace(HONEST, repeated_losses=[5.5, 5.401, 5.31])
    wild = dataclasses.replace(HONEST, repeated_losses=[5.5, 5.0, 5.8])
    assert unequal_work(arm, exact, set()) and losses_unknown(arm, exact, set()) is None
    assert unequal_work(dataclasses.replace(HONEST, first_losses=[5.5, 5.41, 5.3]), noisy, set()) == []
    assert unequal_work(arm, wild, set()) == []
    assert "no seed controls" in str(losses_unknown(arm, wild, set()))
    # Its other facts are still compared with the baseline's.
    assert unequal_work(dataclasses.replace(arm, samples_per_update=4.0), wild, set())


def test_parts_of_a_batch_are_excused_where_a_model_normalises_over_it() -> None:
    assert HONEST.first_losses is not None
    arm = dataclasses.replace(HONEST, first_losses=[loss * 1.1 for loss in HONEST.first_losses], samples_per_pass=4.0)
    normal = dataclasses.replace(HONEST, normalises_batch=True, samples_per_pass=8.0)
    assert "normalises over" in str(losses_unknown(arm, normal, set()))
    # An arm that sees the whole batch has no excuse, nor has a model that handles each sample separately.
    assert losses_unknown(dataclasses.replace(arm, samples_per_pass=8.0), normal, set()) is None
    assert losses_unknown(arm, dataclasses.replace(normal, normalises_batch=False), set()) is None


def test_a_forward_pass_that_draws_excuses_other_losses_only_of_other_techniques() -> None:
    arm = dataclasses.replace(HONEST, first_losses=[5.5, 5.2, 5.1])
    drawing = dataclasses.replace(HONEST, repeated_losses=HONEST.first_losses, draws=True)
    assert unequal_work(arm, drawing, set()) == []
    assert "draws random numbers" in str(losses_unknown(arm, drawing, set()))
    assert losses_unknown(HONEST, drawing, set()) is None
    assert unequal_work(arm, drawing, set(), draws_alike=True)


def test_updates_that_loss_scaling_skips_are_numerics() -> None:
    arm = dataclasses.replace(HONEST, replayed_updates=2, first_losses=[5.5, 5.5, 5.0])
    assert unequal_work(arm, HONEST, {Change.NUMERICS}, OTHER_NUMERICS) == []
    assert len(unequal_work(arm, HONEST, set())) == 2


@pytest.mark.parametrize("optimizer", [(), ("adamw_fused",)])
def test_an_update_that_the_kernel_skips_is_not_counted(optimizer: tuple[str, ...]) -> None:
    """GradScaler always steps a fused optimizer; for others it does not call the step at all."""
    factors = iter([0.01, float("inf"), 0.01, 0.01])
    workload = Workload(
        model=lambda: torch.nn.Linear(4, 4),
        data=lambda: [torch.ones(4)] * 8,
        batch=2,
        loss=lambda model, batch: model(batch).float().sum() * next(factors),
    )
    setup = apply(baseline(workload, torch.device("cpu")), "amp_fp16", *optimizer)
    trainer = Trainer(setup, seed=0)
    witness, observer = Witness(setup, trainer.optimizer), Observer(setup, trainer.optimizer)
    trainer.steps(4)
    seen = witness.facts(4)
    assert (seen["updates"], seen["skipped_updates"], observer.facts(4)["replayed_updates"]) == (3, 1, 3)
    assert trainer.optimizer is not None
    assert all(float(state["step"]) == 3 for state in trainer.optimizer.state.values())


def test_a_constant_loss_is_caught_whatever_is_declared() -> None:
    arm = dataclasses.replace(HONEST, first_losses=[5.5, 5.5, 5.5])
    assert unequal_work(arm, HONEST, set(Change)) == ["the loss is 5.5000 on every batch"]


def test_dropout_layers_are_silenced() -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(4, 4), torch.nn.Dropout2d(0.3)).train()
    set_dropout(model, 0.0)
    data = torch.ones(2, 4)
    assert torch.equal(model[0](data), data)
    assert model[2].p == 0


def test_the_attention_kernel_is_seen() -> None:
    query = torch.randn(1, 2, 8, 4, requires_grad=True)
    with torch.autograd.profiler.profile(use_kineto=False) as fused:
        torch.nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()
    with torch.autograd.profiler.profile(use_kineto=False) as plain:
        (query @ query.transpose(-1, -2)).softmax(-1).sum().backward()
    seen = attention_kernels(fused.function_events or [], compiled=False)
    assert seen and all("flash" in name for name in seen)
    assert attention_kernels(plain.function_events or [], compiled=False) == []


KERNELS = {
    "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4, false, false>>(Flash_fwd_params)": (
        "pytorch_flash::flash_fwd_kernel"
    ),
    "fmha_cutlassF_f32_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel<float>::Params)": (
        "fmha_cutlassF_f32_aligned_64x64_rf_sm80"
    ),
    "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128_4x1x1_kernel0_0": (
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128_4x1x1_kernel0_0"
    ),
    "void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<Flash_bwd_kernel_traits<64>>()": None,
    "fmha_cutlassB_f32_aligned_64x64_k64_sm80(PyTorchMemEffAttention::AttentionBackwardKernel<float>::Params)": None,
    "cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_26_64x64x128_1x1x1_kernel0_0": None,
    "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1": None,
}
"""Names of kernels in the libraries of torch 2.13 for CUDA, and the short names that are kept."""


@pytest.mark.parametrize("kernel", list(KERNELS))
def test_a_kernel_is_known_by_its_name_where_a_graph_hides_the_operator(kernel: str) -> None:
    events = [FunctionEvent(id=0, name=kernel, thread=0, start_us=0, end_us=1, device_type=DeviceType.CUDA)]
    kept = KERNELS[kernel]
    assert attention_kernels(events, compiled=True) == ([kept] if kept else None)
    assert attention_kernels(events, compiled=False) == ([kept] if kept else [])


def test_launches_of_cuda_graphs_are_counted_where_kernels_are_seen() -> None:
    host = [FunctionEvent(id=0, name="cudaGraphLaunch", thread=0, start_us=time, end_us=time + 1) for time in (0, 4)]
    kernel = FunctionEvent(id=1, name="a kernel", thread=0, start_us=1, end_us=3, device_type=DeviceType.CUDA)
    assert cuda_graph_launches([*host, kernel]) == 2
    assert cuda_graph_launches([kernel]) == 0
    assert cuda_graph_launches(host) is None


def test_what_no_rank_could_see_is_unknown() -> None:
    ranks: list[dict[str, Any]] = [
        {"parameters": {}, "attention_kernels": names} for names in (None, [], ["a"], ["b", "a"])
    ]
    assert merge(ranks)["attention_kernels"] == ["a", "b"]
    assert merge(ranks[:2])["attention_kernels"] is None
    assert merge(ranks[1:2])["attention_kernels"] == []
