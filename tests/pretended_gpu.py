"""A pretended GPU, for processes that only import: as far as they can tell, this machine has one.

    python -m tests.pretended_gpu hidden|visible|plans [MODULE]...

Imports what the fork server preloads, with the devices hidden as there (hidden) or not (visible), or makes all plans
for a GPU as the run itself does (plans), and prints the result as JSON. With the CPU build of torch, torch's answers
are replaced. With a CUDA build they are its own: they find the GPUs that the available NVML reports, and really fail
when they start CUDA.
"""

from __future__ import annotations

import functools
import gc
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any

import torch

from bench.host import Host
from bench.plans import customise, plans
from bench.spec import Overrides
from bench.workload import families
from harness.processes import serving
from harness.processes.hidden_gpus import check_forkable

HARMLESS = {
    "is_available",
    "device_count",
    "is_initialized",
    "_device_count_nvml",
    "_is_compiled",
    "_nvml_based_avail",
    "_parse_visible_devices",
}
"""Functions of torch.cuda that, with the devices hidden, query neither the driver nor the device."""


def pretend() -> None:
    """Let the CPU build of torch see a GPU unless it is hidden, and fail when it would be started."""
    torch.version.cuda = "13.0"
    torch.cuda.is_available = _is_visible
    torch.cuda._lazy_init = _start


def _is_visible() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def _start() -> None:
    raise RuntimeError("CUDA was started")


class Calls:
    """Records which functions of torch.cuda are called, and by which functions."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._waiting: set[CodeType] = set()
        for name, function in list(vars(torch.cuda).items()):
            if inspect.isfunction(function) and function.__module__ in ("torch.cuda", __name__):
                setattr(torch.cuda, name, self._noted(name, function))

    def _noted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def noted(*args: Any, **kwargs: Any) -> Any:
            self.names.add(name)
            frame = sys._getframe(1)
            while frame is not None:
                self._waiting.add(frame.f_code)
                frame = frame.f_back  # type: ignore[assignment]
            return function(*args, **kwargs)

        return noted

    def remembered(self) -> list[str]:
        """The functions that cache an answer from torch.cuda."""
        gc.unfreeze()
        caches = [item for item in gc.get_objects() if isinstance(item, functools._lru_cache_wrapper)]
        return sorted(
            f"{item.__module__}.{item.__qualname__}"
            for item in caches
            if item.cache_info().currsize and getattr(item.__wrapped__, "__code__", None) in self._waiting
        )


def _import_in_sight(_: list[str]) -> None:
    for name in serving.PRELOAD:
        importlib.import_module(name)
    check_forkable("an import")


def _make_plans(_: list[str]) -> None:
    host = Host(device="cuda", gpus=1, memory_bytes=80 << 30, capability=(9, 0), need_bytes=lambda spec: 1 << 30)
    for make in plans().values():
        customise(make(host), host, Overrides(models=tuple(families())))
    check_forkable("making plans")


WAYS: dict[str, Callable[[list[str]], None]] = {
    "hidden": serving._preload,
    "visible": _import_in_sight,
    "plans": _make_plans,
}


def main(how: str, modules: list[str]) -> None:
    if torch.version.cuda is None:
        pretend()
    calls = Calls()
    error = None
    try:
        WAYS[how](modules)
    except Exception as raised:  # The caller wants to know it.
        error = f"{type(raised).__name__}: {raised}"
    seen = {
        "error": error,
        "beyond_harmless": sorted(calls.names - HARMLESS),
        "remembered": calls.remembered(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "available_afterwards": torch.cuda.is_available(),
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
