"""What only a GPU can show. Skipped, with the reason, if there is none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from bench.composition import compose, unmet
from bench.host import Host
from bench.registry import techniques
from bench.spec import Plan, Protocol, WorkloadSpec
from harness.heats import conformance
from harness.heats.sweep import Sweep
from harness.preparation.machine import host
from harness.preparation.prepared import prepare
from harness.processes.fork_server import ForkServer
from harness.record import Record
from tests.findings import composition, hold

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU on this machine")


def measure(fork_server: ForkServer, text_folder: Path, log: Path, names: list[str]) -> list[Record]:
    spec = WorkloadSpec(model="gpt2/mini", batch=8, sequence=128, corpus=str(text_folder))
    compositions = tuple((name,) for name in names)
    protocol = dataclasses.replace(Protocol(), timeout_s=300)
    plan = Plan(
        name="gpu",
        workloads=(spec,),
        compositions=compositions,
        device="cuda",
        repetitions=1,
        protocol=protocol,
    )
    sweep = Sweep(
        prepare(plan, fork_server), run_id="gpu", keep=lambda record: None, choose=lambda records: [], log=log
    )
    sweep.run(fork_server)
    return sweep.records


HALF = "has no kernel for this model's attention, float32"
"""FlashAttention and cuDNN's kernel support only half precision, and these models are float32."""

DROPOUT = "without dropout"
"""flex_attention does not support dropout, and these models have some."""

REFUSED = {
    ("gpt2/nano", "flex_attention"): DROPOUT,
    ("bert/nano", "flex_attention"): DROPOUT,
    ("gpt2/nano", "sdpa_flash"): HALF,
    ("bert/nano", "sdpa_flash"): HALF,
    ("gpt2/nano", "sdpa_cudnn"): HALF,
    ("bert/nano", "sdpa_cudnn"): HALF,
    # Liger's kernels are for newer families than these two.
    ("gpt2/nano", "liger"): "has no kernels for this model",
    ("bert/nano", "liger"): "has no kernels for this model",
    ("bert/nano", "chunked_loss"): "causal",
}
"""What one of the two models really cannot do on a GPU, and why; it is found only when the technique is applied."""

if not torch.backends.cusparselt.is_available():
    # It depends on the build of torch: CUDA wheels have it on most platforms.
    REFUSED |= {(model, "sparse_2_4"): "a torch build with cuSPARSELt" for model in conformance.MODELS}


@pytest.fixture(scope="module")
def here(fork_server: ForkServer) -> Host:
    return host("cuda", fork_server.run("harness.preparation.machine:probe_device", {"device": "cuda"}, 60.0))


@pytest.mark.parametrize("name", [name for name, item in techniques().items() if item.family != "planted"])
def test_a_technique_keeps_its_word_on_a_gpu(fork_server: ForkServer, text_folder: Path, here: Host, name: str) -> None:
    names = composition(name)
    unmet_reason = unmet(compose(names), here)
    for finding in conformance.run([names], fork_server, batch=16, corpus=str(text_folder), device="cuda"):
        hold(finding, unmet_reason, REFUSED.get((finding.workload, name)))


def test_gpu_figures_are_known(fork_server: ForkServer, text_folder: Path, tmp_path: Path) -> None:
    for record in measure(fork_server, text_folder, tmp_path / "log", ["tf32"]):
        measured = record.measurement
        assert measured.sample_gpu_util_pct
        assert measured.sample_gpu_power_w
        assert measured.allocated_peak_bytes and measured.reserved_peak_bytes
        # Device events exclude only what the host does outside of them.
        assert sum(measured.round_step_times_s) <= sum(measured.round_host_times_s)
