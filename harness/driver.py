"""Whether the GPU that is there can be used by this build of torch, and if not, why, and what helps."""

from __future__ import annotations

import pynvml
import torch

BUILDS = "another build (README, 'The build of PyTorch')"


def why_unusable() -> str | None:
    """Start CUDA in this process; None if it starts, else the reason in words with the fix."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA.
        return explained(error, torch.version.cuda)
    return None


def explained(error: Exception, built_for: str | None) -> str:
    """Why CUDA did not start. `built_for` is the CUDA release of torch's build, None for a build without.

    A driver runs what was built for its own or an earlier major release
    (https://docs.nvidia.com/deploy/cuda-compatibility/).
    """
    if built_for is None:
        return f"this torch, {torch.__version__}, is built without CUDA: install {BUILDS}"
    driver, runs = versions()
    if driver is not None and runs is not None and runs[0] < int(built_for.partition(".")[0]):
        return (
            f"NVIDIA driver {driver} runs CUDA {runs[0]}.{runs[1]} at most, and this torch, {torch.__version__}, is "
            f"built for CUDA {built_for}: update the driver, or install {BUILDS} for CUDA {runs[0]}"
        )
    lines = str(error).strip().splitlines()
    return f"CUDA does not start: {lines[0] if lines else type(error).__name__}"


def versions() -> tuple[str | None, tuple[int, int] | None]:
    """The driver's version, and the latest release of CUDA that it runs; None for what NVML does not tell."""
    driver = runs = None
    try:
        pynvml.nvmlInit()
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        # As in 13000 for 13.0.
        number = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
        runs = (number // 1000, number % 1000 // 10)
    except pynvml.NVMLError:
        pass
    return driver, runs
