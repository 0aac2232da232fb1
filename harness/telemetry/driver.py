"""Whether this build of torch can use the GPU of this machine, and if not, why, and what helps."""

from __future__ import annotations

import os

import torch

from harness.telemetry.gpus import Gpus

ANOTHER_BUILD = "install another build of PyTorch (README.md, 'The build of PyTorch')"


def why_unusable() -> str | None:
    """Start CUDA in this process. None if it starts, else the reason in words, with the fix."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA.
        return explained(error, torch.version.cuda)
    return None


def overlooked() -> str | None:
    """In words: there is an NVIDIA driver, but this torch is built without CUDA. None if that is not the case."""
    driver = Gpus("cuda", ()).driver()[0] if torch.version.cuda is None else None
    if driver is None:
        return None
    return f"there is an NVIDIA driver ({driver}), but {explained(AssertionError(), None)}"


def is_too_old() -> bool:
    """Whether the GPUs are not hidden, and their driver is too old for the CUDA release that torch was built for."""
    if torch.version.cuda is None or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return False
    runs = Gpus("cuda", ()).driver_cuda()
    return isinstance(runs, tuple) and _is_older(runs, torch.version.cuda)


def _is_older(runs: tuple[int, int], built_for: str) -> bool:
    return runs[0] < int(built_for.partition(".")[0])


def explained(error: Exception, built_for: str | None) -> str:
    """Why CUDA did not start. `built_for` is the CUDA release that torch was built for, None for a build without CUDA.

    A driver runs programs built for its own major release of CUDA or an earlier one
    (https://docs.nvidia.com/deploy/cuda-compatibility/).
    """
    if built_for is None:
        return f"this torch, {torch.__version__}, is built without CUDA: {ANOTHER_BUILD}"
    gpus = Gpus("cuda", ())
    driver, runs = gpus.driver()[0], gpus.driver_cuda()
    if isinstance(runs, tuple) and _is_older(runs, built_for):
        return (
            f"the NVIDIA driver is too old ({driver}) for this torch, {torch.__version__}, which is built for CUDA "
            f"{built_for}: update the driver, or {ANOTHER_BUILD}"
        )
    lines = str(error).strip().splitlines()
    return f"CUDA does not start: {lines[0] if lines else type(error).__name__}"
