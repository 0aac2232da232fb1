"""A driver's NVML where there is no GPU: driver.c, built as the library that nvidia-ml-py looks for, and its steering.

A test asks in a process of its own, whose loader finds the library: pynvml keeps the first that it has loaded, and the
one of a real driver is not to be displaced where the tests run on a GPU.
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
"""What is done to a driver, or to what its chips show, in the middle of a test."""

SONAME = "libnvidia-ml.so.1"

FIRST = "11111111-2222-3333-4444-555555555555"
SECOND = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
SLICE = "99999999-8888-7777-6666-555555555555"
"""The UUIDs of the two chips and the slice, as torch gives them. Their numbers are 0, 1 and 2 here."""


def build(folder: Path, *, without: Sequence[str] = ()) -> Path:
    """Build the library in `folder` as that of a driver that lacks the functions in `without`."""
    return _build(folder, SONAME, "driver.c", [f"-D{name}=gone_{name}" for name in without])


def build_old(folder: Path) -> Path:
    """Build in `folder` what a driver for CUDA 12.8 at most brings: NVML, and what the CUDA runtime asks first."""
    _build(folder, "libcuda.so.1", "old_cuda.c", [])
    # The one that is left tells of CUDA 12.8.
    return build(folder, without=["nvmlSystemGetCudaDriverVersion_v2"])


def _build(folder: Path, name: str, source: str, options: Sequence[str]) -> Path:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    assert compiler, "no C compiler on the PATH, which these tests need as torch.compile does: apt install gcc"
    linked = ["-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name)]
    subprocess.run([compiler, "-Wall", *options, *linked, str(Path(__file__).with_name(source))], check=True)
    return folder


def ask(folder: Path, question: Callable[..., T], *arguments: Any) -> T:
    """What `question`, a function of a module, answers in a new process that finds NVML in `folder`."""
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
    with (
        mock.patch.dict(os.environ, LD_LIBRARY_PATH=paths),
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        return pool.submit(question, *arguments).result(timeout=120)


def show(device: int, **values: int) -> None:
    """What NVML says of a device from now on, by the names and in the units of driver.c."""
    for name, value in values.items():
        assert _library().steer_value(device, name.encode(), ctypes.c_ulonglong(value)) == 0, name


def violate(device: int, policy: int, violation_ns: int) -> None:
    """For how long a policy has held back a device's clocks."""
    assert _library().steer_violation_ns(device, policy, ctypes.c_ulonglong(violation_ns)) == 0


def fail(call: str, code: int, device: int = -1) -> None:
    """Let a call fail with a code; "*" are all calls that ask about a device, -1 are all devices."""
    assert _library().steer_failure(call.encode(), device, code) == 0


def recover() -> None:
    """No call fails any more."""
    _library().steer_no_failures()


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(SONAME)
