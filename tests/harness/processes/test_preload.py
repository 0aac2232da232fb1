"""The fork server imports everything that arms need without starting CUDA or hiding the GPU from them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SLICE = "MIG-6ba7b810-9dad-11d1-80b4-00c04fd430c8"


@pytest.fixture
def imported(driver: Path) -> Callable[..., dict[str, Any]]:
    """The result of importing on a machine that, as far as imports can see, has GPUs."""

    def run(how: str, *modules: str, devices: str | None = None) -> dict[str, Any]:
        environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        # A CUDA build counts the GPUs of this driver's NVML.
        environment |= {"PYTORCH_NVML_BASED_CUDA_CHECK": "1", "LD_LIBRARY_PATH": str(driver)}
        environment |= {"CUDA_VISIBLE_DEVICES": devices} if devices else {}
        command = [sys.executable, "-m", "tests.pretended_gpu", how, *modules]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return seen

    return run


Imported = Callable[..., dict[str, Any]]


DEVICES = (None, *([SLICE] if torch.version.cuda else []))
"""A CPU build makes no queries about slices."""


@pytest.mark.long
@pytest.mark.parametrize("devices", DEVICES)
def test_imports_that_see_a_gpu_start_it(imported: Imported, devices: str | None) -> None:
    """Without this the other tests would prove nothing: some imports do start a visible GPU."""
    seen = imported("visible", devices=devices)
    assert "started" in seen["error"] or "NVIDIA driver" in seen["error"]
    # If a slice is visible, a CUDA build queries CUDA in a function that is harmless otherwise.
    assert seen["beyond_harmless"] or devices == SLICE


@pytest.mark.parametrize("devices", DEVICES)
def test_the_preload_starts_no_gpu_and_hides_none_for_good(imported: Imported, devices: str | None) -> None:
    seen = imported("hidden", devices=devices)
    assert seen["error"] is None
    assert seen["beyond_harmless"] == []
    assert seen["remembered"] == []
    assert seen["visible"] == devices
    # CUDA itself needs a real driver, so here a CUDA build finds no slice.
    assert seen["available_afterwards"] or devices == SLICE


def test_the_run_itself_stays_off_the_gpu(imported: Imported) -> None:
    """It would take memory there, and be counted as another program."""
    seen = imported("plans")
    assert seen["error"] is None
    assert seen["beyond_harmless"] == []


@pytest.mark.long
def test_a_plugin_sees_the_gpu_and_may_not_start_it(imported: Imported, tmp_path: Path) -> None:
    looks, starts = tmp_path / "looks.py", tmp_path / "starts.py"
    looks.write_text("import torch\nassert torch.cuda.is_available()\n")
    starts.write_text("import torch\ntorch.cuda.get_device_capability()\n")
    error = imported("hidden", str(looks), str(starts))["error"]
    assert "starts.py" in error and "looks.py" not in error
