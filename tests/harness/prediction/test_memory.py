"""Predicted memory is the memory that training then takes, and plans choose by it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from bench.corpus import Corpus
from bench.host import Host
from bench.plans import known_plan
from bench.resolve import resolve
from bench.seeds import seed_all
from bench.setup import baseline
from bench.spec import WorkloadSpec
from bench.workload import Workload, families, parameter_count
from harness.evidence.allocation import allocated_peak_bytes
from harness.prediction.limits import Unforeseen
from harness.prediction.trial import ALLOCATION_BYTES, UPDATES, Predicted, Trial
from harness.preparation.prepared import need_bytes
from harness.processes.fork_server import ForkServer
from harness.timing.trainer import Trainer
from tests.gpu_acceptance.memory import COMPOSITIONS
from tests.training import apply

WORKSPACE_BYTES = Trial(device="cuda").workspace_bytes

SCRATCH_BYTES = 512 << 10
"""Scratch memory that the matrix library allocates on some CPUs to multiply bfloat16 matrices: 477 kB for the largest
product here on a CPU with avx512_bf16, of which the peak shows 208 kB."""


TRIED = [
    ("gpt2/tiny", ()),
    ("gpt2/tiny", ("amp_bf16",)),
    pytest.param("gpt2/tiny", ("pure_bf16",), marks=pytest.mark.long),
    ("gpt2/tiny", ("checkpoint_activations",)),
    pytest.param("gpt2/tiny", ("checkpoint_selective",), marks=pytest.mark.long),
    pytest.param("gpt2/tiny", ("accumulate_4",), marks=pytest.mark.long),
    ("gpt2/tiny", ("sgd_momentum",)),
    ("gpt2/tiny", ("adafactor",)),
    pytest.param("gpt2/tiny", ("muon",), marks=pytest.mark.long),
    ("gpt2/tiny", ("optimizer_in_backward",)),
    ("gpt2/nano", ("amp_fp16",)),
    ("gpt2/nano", ("qlora",)),
    ("gpt2/nano", ("qat_int8",)),
    ("gpt2/nano", ("prune_heads_50",)),
    ("gpt2/nano", ("bucket_lengths",)),
    pytest.param("bert/mini", (), marks=pytest.mark.long),
    pytest.param("bert/mini", ("checkpoint_activations", "amp_bf16"), marks=pytest.mark.long),
    pytest.param("llama/nano", (), marks=pytest.mark.long),
    ("llama/nano", ("amp_bf16", "lora")),
    ("t5/nano", ("adamw_fused",)),
    ("vit/nano", ("amp_bf16",)),
    pytest.param("moe/nano", (), marks=pytest.mark.long),
    ("moe/nano", ("amp_bf16",)),
    ("whisper/nano", ("accumulate_2",)),
]


def predict(workload: Workload, names: Sequence[str] = (), *, device: str) -> Predicted:
    return Trial(techniques=names, device=device).run(workload)


def trained(workload: Workload, names: Sequence[str]) -> None:
    seed_all(0)
    Trainer(apply(baseline(workload, torch.device("cpu")), *names), seed=0).steps(UPDATES)


@pytest.mark.parametrize(("model", "names"), TRIED)
def test_what_is_predicted_is_what_is_allocated(corpus: Corpus, model: str, names: tuple[str, ...]) -> None:
    text = model.partition("/")[0] not in ("vit", "resnet", "whisper")
    workload = resolve(WorkloadSpec(model=model, batch=8, sequence=64 if text else None), corpus)
    predicted = predict(workload, names, device="cpu")
    assert sum(predicted.kinds.values()) == sum(predicted.modules.values()) == predicted.peak_bytes
    scratch_bytes = SCRATCH_BYTES if {"amp_bf16", "pure_bf16"} & set(names) else 0
    # What is recomputed in the backward pass is freed slightly earlier than the references to it end here.
    slack_bytes = (4e-3 if "checkpoint" in str(names) else 1e-3) * predicted.peak_bytes
    measured_bytes = allocated_peak_bytes(lambda: trained(workload, names))
    assert predicted.peak_bytes - slack_bytes <= measured_bytes <= predicted.peak_bytes + slack_bytes + scratch_bytes


def test_what_convolutions_take_beside_their_results_is_not_known(corpus: Corpus) -> None:
    workload = resolve(WorkloadSpec(model="resnet/nano", batch=8), corpus)
    with pytest.raises(Unforeseen, match="convolutions"):
        predict(workload, device="cpu")


def test_a_gpu_is_not_predicted_as_a_cpu(corpus: Corpus) -> None:
    """On a GPU no kernel keeps the whole matrix of scores, and the optimizer updates all parameters at once."""
    workload = resolve(WorkloadSpec(model="gpt2/tiny", batch=8, sequence=512), corpus)
    on_cpu, on_gpu = (predict(workload, device=device) for device in ("cpu", "cuda"))
    layers, heads, scores_bytes = 4, 4, 4 * 8 * 512 * 512
    assert on_cpu.peak_bytes - on_gpu.peak_bytes > layers * heads * scores_bytes
    eager = predict(workload, ["attention_eager"], device="cuda")
    assert eager.peak_bytes - on_gpu.peak_bytes > layers * heads * scores_bytes
    assert on_gpu.state_bytes % ALLOCATION_BYTES["cuda"] == 0
    parameters = sum(item.numel() for item in workload.model().parameters())
    assert 12 * parameters <= on_gpu.state_bytes < 12.1 * parameters


def test_optimizers_are_predicted_as_a_gpu_runs_them(corpus: Corpus) -> None:
    """With so few tokens the peak is in the update. Batched over all parameters, it has one more value for each:
    weights, gradients, two moments and the root of one. A fused kernel has none; a loop has that of the largest."""
    workload = resolve(WorkloadSpec(model="gpt2/mini", batch=1, sequence=16), corpus)
    parameters_bytes = sum(4 * item.numel() for item in workload.model().parameters())

    def copies(*names: str) -> float:
        return (predict(workload, names, device="cuda").peak_bytes - WORKSPACE_BYTES) / parameters_bytes

    assert copies() == pytest.approx(5, abs=0.05)
    assert copies("adamw_fused") == pytest.approx(4, abs=0.05)
    assert copies("adamw_loop") == pytest.approx(4, abs=0.2)
    assert copies("sgd") == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("names", [*COMPOSITIONS, ("checkpoint_selective", "amp_bf16"), ("pure_bf16", "sdpa_flash")])
def test_compositions_are_predicted_for_a_gpu(corpus: Corpus, names: tuple[str, ...]) -> None:
    """The backward pass recomputes exactly what the forward pass computed, or torch would object."""
    workload = resolve(WorkloadSpec(model="llama/nano", batch=8, sequence=64), corpus)
    assert predict(workload, names, device="cuda").peak_bytes > WORKSPACE_BYTES


def test_autocast_is_predicted_as_a_gpu_does_it(corpus: Corpus) -> None:
    """There the power in GPT-2's activation and its layer norms give float32, which is wider than on a CPU."""
    workload = resolve(WorkloadSpec(model="gpt2/tiny", batch=8, sequence=64), corpus)
    narrow, wide = (predict(workload, [name], device="cuda").peak_bytes for name in ("pure_bf16", "amp_bf16"))
    plain = predict(workload, device="cuda").peak_bytes
    assert narrow < 0.8 * wide and wide < plain


@pytest.mark.parametrize("name", list(families()))
def test_every_family_is_predicted_or_said_to_be_unknown(fork_server: ForkServer, name: str) -> None:
    smallest = next(iter(families()[name].sizes))
    need = need_bytes(fork_server, "cuda")(WorkloadSpec(model=f"{name}/{smallest}"))
    # The memory that convolution libraries take is unknown.
    assert (need is None) == (name == "resnet")
    host = Host(device="cuda", gpus=1, memory_bytes=8 << 30, capability=(9, 0), need_bytes=lambda spec: need)
    assert host.fits(WorkloadSpec(model=f"{name}/{smallest}"))


CARDS_BYTES = {
    # The total memory in MiB that nvidia-smi shows for an RTX 4090, A100 40GB and L40S. Larger cards get larger models,
    # and a whole update of each has to be traced.
    24: 24564 << 20,
    40: 40960 << 20,
    48: 46068 << 20,
}

TAKEN_BYTES = 600 << 20
"""Memory taken by the driver, and by whatever else is on the card."""


@pytest.mark.long
def test_what_plans_choose_on_each_card(fork_server: ForkServer) -> None:
    need = need_bytes(fork_server, "cuda")
    chosen = {}
    for card, memory_bytes in CARDS_BYTES.items():
        host = Host(device="cuda", gpus=1, memory_bytes=memory_bytes - TAKEN_BYTES, capability=(9, 0), need_bytes=need)
        plans = {name: known_plan(name)(host) for name in ("quick", "full", "each")}
        chosen[card] = {name: [spec.model for spec in plan.workloads] for name, plan in plans.items()}
        # The default plan ends in ten minutes; `full` has no budget.
        assert plans["quick"].budget_s and plans["full"].budget_s is None
    small = ["gpt2/small", "bert/base", "bert/large"]
    assert chosen == {
        24: {"quick": ["gpt2/small", "bert/base"], "full": small, "each": ["gpt2/mini"]},
        40: {"quick": ["gpt2/small", "bert/base"], "full": small, "each": ["gpt2/small"]},
        48: {
            "quick": ["gpt2/small", "bert/base"],
            "full": ["gpt2/small", "gpt2/medium", *small[1:]],
            "each": ["gpt2/small"],
        },
    }


def test_where_nothing_fits_side_by_side_the_least_is_taken() -> None:
    host = Host(device="cuda", gpus=1, memory_bytes=3, capability=(9, 0), need_bytes=lambda spec: len(spec.model))
    assert [spec.model for spec in known_plan("quick")(host).workloads] == ["bert/base"]


@pytest.mark.parametrize("name", list(families()))
def test_families_list_their_smallest_size_first(name: str) -> None:
    family = families()[name]
    counts = [parameter_count(family, size) for size in family.sizes.values()]
    assert counts == sorted(counts)


def test_too_large_a_batch_is_refused(fork_server: ForkServer) -> None:
    with pytest.raises(ValueError, match="batch 1000000000 is more than"):
        need_bytes(fork_server, "cpu")(WorkloadSpec(model="gpt2/nano", batch=10**9))
