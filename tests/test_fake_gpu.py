"""What needs a GPU, tested without one: on fake tensors, which have shapes and types but no data.

Fake tensors on the CPU can take whole steps with any build of torch. On a fake GPU, a CUDA build can apply techniques,
run the forward pass and update; a CPU build can only apply techniques. If torch stops a technique, the table says where
and with which message. That is checked too: once torch gets further, the table must be corrected.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from enum import IntEnum

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only
from torch.utils.data import default_collate

from bench.composition import compose, unmet
from bench.corpus import Corpus, open_corpus
from bench.host import Host
from bench.registry import techniques
from bench.resolve import resolve
from bench.setup import TrainingSetup, baseline
from bench.spec import WorkloadSpec

pytestmark = [
    pytest.mark.usefixtures("one_rank", "one_thread", "settings"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: tests/gpu try all of this for real"),
]

BUILD = "cpu" if torch.version.cuda is None else "cuda"


class Step(IntEnum):
    """The steps, in order."""

    APPLY = 1
    OPTIMIZER = 2
    FORWARD = 3
    BACKWARD = 4
    UPDATE = 5


NO_BACKWARD = "hasPrimaryContext expects a valid device index"
"""The error of autograd's engine, which asks the driver for the devices of a graph before it runs any of it."""

NO_KERNEL = "has no kernel for this model's attention"
NO_DATA = "its data is not allocated yet"

LIMITS: dict[tuple[str, str, str], tuple[Step, str]] = {
    # scaled_dot_product_attention chooses the kernels of a GPU by the properties of the one that is present.
    ("sdpa_efficient", "cpu", "cpu"): (Step.FORWARD, NO_KERNEL),
    ("sdpa_efficient", "cuda", "cpu"): (Step.FORWARD, NO_KERNEL),
    ("sdpa_efficient", "cuda", "cuda"): (Step.FORWARD, NO_KERNEL),
    ("sdpa_cudnn", "cpu", "cpu"): (Step.FORWARD, NO_KERNEL),
    ("sdpa_cudnn", "cuda", "cpu"): (Step.FORWARD, NO_KERNEL),
    ("sdpa_cudnn", "cuda", "cuda"): (Step.FORWARD, "CUDA driver version is insufficient"),
    # Only a CUDA build has cuSPARSELt, and its operator does not support fake tensors on a CPU.
    ("sparse_2_4", "cpu", "cpu"): (Step.APPLY, "needs a torch build with cuSPARSELt"),
    ("sparse_2_4", "cpu", "cuda"): (Step.APPLY, "needs a torch build with cuSPARSELt"),
    ("sparse_2_4", "cuda", "cpu"): (Step.FORWARD, "_sparse_semi_structured_tile"),
    ("sparse_2_4", "cuda", "cuda"): (Step.FORWARD, "Found no NVIDIA driver"),
    # torchao asks torch for the devices of this machine and creates a stream on the last one.
    ("offload_optimizer", "cpu", "cpu"): (Step.OPTIMIZER, "only supports CUDA & XPU"),
    ("offload_optimizer", "cpu", "cuda"): (Step.OPTIMIZER, "only supports CUDA & XPU"),
    ("offload_optimizer", "cuda", "cpu"): (Step.OPTIMIZER, "only supports CUDA & XPU"),
    ("offload_optimizer", "cuda", "cuda"): (Step.OPTIMIZER, "only supports CUDA & XPU"),
    # To replace a Conv1D a weight is transposed, which is a computation.
    ("fp8_rowwise", "cpu", "cuda"): (Step.APPLY, "not linked with support for cuda"),
    ("fp8_tensorwise", "cpu", "cuda"): (Step.APPLY, "not linked with support for cuda"),
    # DistributedDataParallel broadcasts the parameters' data when it is created.
    ("ddp_bf16_hook", "cpu", "cpu"): (Step.APPLY, NO_DATA),
    ("ddp_bf16_hook", "cpu", "cuda"): (Step.APPLY, NO_DATA),
    ("ddp_bf16_hook", "cuda", "cpu"): (Step.APPLY, NO_DATA),
    ("ddp_bf16_hook", "cuda", "cuda"): (Step.APPLY, NO_DATA),
    # Inductor and the capture of CUDA graphs read the properties of the GPU.
    ("compile_reduce_overhead", "cuda", "cuda"): (Step.FORWARD, "backend='inductor' raised"),
    ("cuda_graphs", "cuda", "cuda"): (Step.FORWARD, "backend='cudagraphs' raised"),
}
"""By technique, build of torch and device of the tensors: the step at which torch stops, and its message."""

ENDS_THE_PROCESS = {
    # Inductor's code for a CPU reads the data, which these tensors do not have.
    ("compile_reduce_overhead", "cpu"),
}
"""By technique and device: what is tested in a separate process, because torch ends the process."""


def needs_gpu(name: str) -> bool:
    here = Host(device="cpu", cores=64)
    return any("GPU" in (need(here) or "") for need in techniques()[name].needs)


EIGHT_GPUS = Host(device="cuda", gpus=8, capability=(10, 0))
"""A host with everything that a technique may need of a machine; its packages are those installed here."""

NAMES = [
    "",
    "adamw_fused",
    *(name for name, item in techniques().items() if item.family != "planted" and needs_gpu(name)),
]
"""The baseline, a fused optimizer, and all techniques that need a GPU."""


@pytest.fixture
def settings() -> Iterator[None]:
    """Restore what techniques set for the whole process."""
    yield
    torch.set_float32_matmul_precision("highest")
    torch._dynamo.reset()


def onto(setup: TrainingSetup, device: str) -> TrainingSetup:
    """The setup with its real parameters replaced by fake ones on the device: fake parameters cannot be moved there."""
    made: dict[Tensor, nn.Parameter] = {}
    for module in setup.model.modules():
        for name, item in module._parameters.items():
            if item is not None:
                # Tied weights stay tied.
                module._parameters[name] = made.setdefault(item, nn.Parameter(faked(item, device)))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = faked(buffer, device)
    return replace(setup, device=torch.device(device))


def faked(tensor: Tensor, device: str) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)


class Stopped(Exception):
    """The step that was not taken; its cause is the error of torch or of the technique."""

    def __init__(self, step: Step) -> None:
        super().__init__(step.name.lower())
        self.step = step


def take_steps(corpus: Corpus, name: str, device: str, last: Step) -> TrainingSetup:
    """One update on fake tensors, up to and including the step `last`. Raises Stopped if a step cannot be taken."""
    step = Step.APPLY
    workload = resolve(WorkloadSpec(model="gpt2/nano", batch=8, sequence=32), corpus)
    samples, plain = workload.data(), baseline(workload, torch.device("cpu"))
    real = default_collate([samples[index] for index in range(8)])
    try:
        with FakeTensorMode():
            setup = onto(plain, device)
            for technique in compose([name] if name else []):
                setup = technique.apply(setup)
            if last >= (step := Step.OPTIMIZER):
                trained = [item for item in setup.model.parameters() if item.requires_grad]
                optimizer = setup.optimizer(trained)
            if last >= (step := Step.FORWARD):
                batch = tree_map_only(Tensor, lambda item: faked(item, device), real)
                with setup.autocast():
                    loss = setup.loss(setup.model, batch)
                assert loss.device.type == device and loss.dim() == 0
            if last >= (step := Step.BACKWARD):
                if device == "cpu":
                    loss.backward()
                else:
                    with pytest.raises(RuntimeError, match=NO_BACKWARD):
                        loss.backward()
                    for item in trained:
                        item.grad = torch.empty_like(item)
            if last >= (step := Step.UPDATE):
                assert all(item.grad is not None for item in trained)
                optimizer.step()
                state = [each for each in optimizer.state.values() if each]
                assert len(state) == len(trained)
    except Exception as error:
        raise Stopped(step) from error
    return setup


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] * any(name == own for own, _ in ENDS_THE_PROCESS)) for name in NAMES],
)
def test_an_update_goes_as_far_as_torch_lets_it(corpus: Corpus, name: str, device: str) -> None:
    if reason := unmet(compose([name] if name else []), EIGHT_GPUS):
        pytest.skip(reason)
    if (name, device) in ENDS_THE_PROCESS:
        assert apart(name, device, Step.UPDATE).returncode != 0
        take_steps(corpus, name, device, Step.OPTIMIZER)
        return
    # With a CPU build, computing on a fake GPU ends the process: see the test below.
    last = Step.OPTIMIZER if (BUILD, device) == ("cpu", "cuda") else Step.UPDATE
    limit = LIMITS.get((name, BUILD, device))
    if limit is None:
        take_steps(corpus, name, device, last)
        return
    step, said = limit
    with pytest.raises(Stopped) as stopped:
        take_steps(corpus, name, device, last)
    assert stopped.value.step == step
    assert said in str(stopped.value.__cause__)


@pytest.mark.long
@pytest.mark.skipif(BUILD != "cpu", reason="this build computes on fake GPUs")
def test_a_build_for_the_cpu_ends_the_process_that_computes_on_a_fake_gpu() -> None:
    done = apart("", "cuda", Step.FORWARD)
    assert done.returncode != 0
    assert "not linked with support for cuda" in done.stderr


def apart(name: str, device: str, last: Step) -> subprocess.CompletedProcess[str]:
    """The same steps in a separate process."""
    command = [sys.executable, "-m", "tests.test_fake_gpu", name, device, str(int(last))]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


if __name__ == "__main__":
    take_steps(open_corpus("tests"), sys.argv[1], sys.argv[2], Step(int(sys.argv[3])))
