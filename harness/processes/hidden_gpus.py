"""Imports before a fork, with GPUs hidden: CUDA does not survive a fork once it has been asked for devices."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

REMEMBER_GPUS = ("torch.utils._triton", "transformers.utils.import_utils")
"""Modules with functions that cache an answer that depends on whether there is a GPU."""


@contextlib.contextmanager
def without_gpus() -> Iterator[None]:
    """Imports in this context find no GPU, and what they conclude from that is forgotten afterwards.

    transformers imports kernels of torchao that look for a GPU at import, which starts CUDA. If a MIG slice is chosen,
    torch cannot count GPUs with NVML and asks CUDA, which silently spoils every later fork.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        yield
    finally:
        if visible is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible
        for name in REMEMBER_GPUS:
            for item in vars(sys.modules.get(name)).values() if name in sys.modules else ():
                if hasattr(item, "cache_clear"):
                    item.cache_clear()


def check_forkable(culprit: str) -> None:
    """Raises RuntimeError if CUDA was initialised or asked for its devices: neither survives a fork."""
    import torch

    if torch.cuda.is_initialized() or _is_spoilt():
        raise RuntimeError(
            f"{culprit} started CUDA when it was imported, so that no forked arm could use it: "
            "move the code that asks for the GPU into a function"
        )


def _is_spoilt() -> bool:
    """Whether torch would refuse CUDA in a forked process: only such a process can tell."""
    import torch

    pid = os.fork()
    if pid == 0:
        os._exit(int(getattr(torch._C, "_cuda_isInBadFork", lambda: False)()))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
