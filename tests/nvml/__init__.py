"""A fake NVML for machines without a GPU: driver.c, built as the library that nvidia-ml-py loads, and its controls.

Tests query it in a separate process whose loader finds this library: pynvml keeps the first one that it has loaded, and
the library of a real driver must not be replaced when the tests run on a GPU.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

T = TypeVar("T")
Change = Callable[[], None]
"""A change to the driver, or to what its chips report, in the middle of a test."""

SONAME = "libnvidia-ml.so.1"

FIRST = "11111111-2222-3333-4444-555555555555"
SECOND = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
SLICE = "99999999-8888-7777-6666-555555555555"
"""The UUIDs of the two chips and the slice, as torch reports them. Here their numbers are 0, 1 and 2."""


def build(folder: Path, *, without: Sequence[str] = ()) -> Path:
    """Build the library in `folder`, like that of a driver without the functions in `without`."""
    return _build(folder, SONAME, "driver.c", [f"-D{name}=gone_{name}" for name in without])


def build_old(folder: Path) -> Path:
    """Build in `folder` the libraries of a driver for up to CUDA 12.8: NVML, and what the CUDA runtime calls first."""
    _build(folder, "libcuda.so.1", "old_cuda.c", [])
    # The remaining function reports CUDA 12.8.
    return build(folder, without=["nvmlSystemGetCudaDriverVersion_v2"])


def _build(folder: Path, name: str, source: str, options: Sequence[str]) -> Path:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    assert compiler, "no C compiler on the PATH, which these tests need as torch.compile does: apt install gcc"
    linked = ["-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name)]
    subprocess.run([compiler, "-Wall", *options, *linked, str(Path(__file__).with_name(source))], check=True)
    return folder


def ask(folder: Path, question: Callable[..., T], *arguments: Any) -> T:
    """The result of `question`, a function in a module, in a new process that finds NVML in `folder`."""
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
    with (
        mock.patch.dict(os.environ, LD_LIBRARY_PATH=paths),
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        return pool.submit(question, *arguments).result(timeout=120)


def show(device: int, **values: int) -> None:
    """Set what NVML reports about a device from now on, with the names and units of driver.c."""
    for name, value in values.items():
        assert _library().steer_value(device, name.encode(), ctypes.c_ulonglong(value)) == 0, name


def violate(device: int, policy: int, violation_ns: int) -> None:
    """Set for how long a policy has held back a device's clocks."""
    assert _library().steer_violation_ns(device, policy, ctypes.c_ulonglong(violation_ns)) == 0


def fail(call: str, code: int, device: int = -1) -> None:
    """Let a call fail with a code; "*" means all calls about a device, and -1 all devices."""
    assert _library().steer_failure(call.encode(), device, code) == 0


def recover() -> None:
    """Let all calls succeed again."""
    _library().steer_no_failures()


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(SONAME)
