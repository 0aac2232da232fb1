"""A GPU that torch cannot use is reported in one line with the fix, never by a traceback and never silently."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.telemetry.driver import explained
from tests import ROOT, nvml

NO_GPU = RuntimeError("Found no NVIDIA driver on your system.\nAnd so on.")

is_built_for_cuda = torch.version.cuda is not None


@pytest.fixture(scope="module")
def old_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml.build_old(tmp_path_factory.mktemp("old"))


def trainpace(driver: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(driver), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
    found = {"LD_LIBRARY_PATH": paths, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, cwd=cwd, env=os.environ | found, capture_output=True, text=True, check=False)


def explained_by(error: Exception, built_for: str | None) -> str:
    return explained(error, built_for)


@pytest.mark.long
def test_a_driver_that_is_too_old_is_named_with_both_releases(old_driver: Path, driver: Path) -> None:
    old = nvml.ask(old_driver, explained_by, NO_GPU, "13.0")
    assert "too old (580.95.05, CUDA 12.8) for this torch" in old and "built for CUDA 13.0: update the driver" in old
    # If the driver is not too old, the first line of CUDA's error is reported.
    assert nvml.ask(driver, explained_by, NO_GPU, "13.0") == f"CUDA does not start: {str(NO_GPU).splitlines()[0]}"
    assert nvml.ask(old_driver, explained_by, NO_GPU, "12.6") == nvml.ask(driver, explained_by, NO_GPU, "13.0")
    assert "is built without CUDA" in nvml.ask(driver, explained_by, NO_GPU, None)


NAMES_A_GPU = ("run", "smoke", "--device", "cuda")
NAMES_NONE = (("run", "smoke"), ("gate", "--model", "gpt2/nano", "--head-technique", "adam"))
"""A torch build without CUDA ignores the driver, so users with a GPU are told."""


@pytest.mark.long
@pytest.mark.parametrize("words", [NAMES_A_GPU, *(NAMES_NONE if is_built_for_cuda else ())])
def test_every_run_says_so_in_one_line(old_driver: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    done = trainpace(old_driver, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("trainpace: device 'cuda' is not available: ") and done.stderr.count("\n") == 1
    assert ("580.95.05, CUDA 12.8" if is_built_for_cuda else "is built without CUDA") in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_doctor_says_so_and_goes_on(old_driver: Path, tmp_path: Path) -> None:
    done = trainpace(old_driver, "doctor", cwd=tmp_path)
    assert done.returncode == 0
    assert "580.95.05" in done.stdout and "The build of PyTorch" in done.stdout
    assert "technique adam" in done.stdout
