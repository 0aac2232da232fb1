"""Imports before a fork: they find no GPU, for CUDA that has been asked once does not survive a fork."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

REMEMBER_GPUS = ("torch.utils._triton", "transformers.utils.import_utils")
"""Modules whose functions keep an answer that depends on whether there is a GPU."""


@contextlib.contextmanager
def without_gpus() -> Iterator[None]:
    """Whatever is imported meanwhile finds no GPU to ask, and what it concludes from that is forgotten afterwards.

    transformers imports kernels of torchao that look at the GPU as they are imported, which starts CUDA. Where a MIG
    slice is chosen torch cannot count GPUs by NVML and asks CUDA, which spoils every later fork without a trace.
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
    """Raises RuntimeError if CUDA was initialised, or asked for its devices, which a fork does not survive either."""
    import torch

    if torch.cuda.is_initialized() or _is_spoilt():
        raise RuntimeError(
            f"{culprit} started CUDA when it was imported, so that no forked arm could use it: "
            "move the code that asks for the GPU into a function"
        )


def _is_spoilt() -> bool:
    """Whether torch would refuse CUDA to a forked process: only such a process can tell."""
    import torch

    pid = os.fork()
    if pid == 0:
        os._exit(int(getattr(torch._C, "_cuda_isInBadFork", lambda: False)()))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
