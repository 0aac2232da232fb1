"""Training in a process with limited memory."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import resource
from collections.abc import Sequence

import torch

from bench.composition import compose
from bench.seeds import seed_all
from bench.setup import baseline
from bench.workload import Workload
from harness.message import Message
from harness.processes.worker import requested_workload, status_bytes
from harness.timing.largest import ran_out_of_memory
from harness.timing.trainer import Trainer

UPDATES = 2

M_MMAP_THRESHOLD = -3
"""An option of mallopt: allocations from this size on get their own mapping, which is returned to the system when
freed."""

MAPPED_BYTES = 1 << 16


def runs_within(
    request: Message, techniques: Sequence[str], seed: int, batches: tuple[int, int], limit_bytes: int
) -> bool:
    """Task: whether the second batch trains on the CPU with so many bytes beyond what the process still holds after
    training on the first, small one.

    The kernel refuses more than that (RLIMIT_DATA). Raises whatever training raises for another reason.
    """
    # Otherwise freed memory stays in the allocator's pools, and fragmentation decides what fits.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
    small, asked = batches
    workload = requested_workload(request)
    # After this, libraries have allocated what they keep for themselves.
    _train(dataclasses.replace(workload, batch=small), techniques, seed)
    gc.collect()
    most_bytes = status_bytes("VmData") + limit_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))
    try:
        _train(dataclasses.replace(workload, batch=asked), techniques, seed)
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        return False
    return True


def _train(workload: Workload, techniques: Sequence[str], seed: int) -> None:
    seed_all(seed)
    setup = baseline(workload, torch.device("cpu"))
    for technique in compose(techniques):
        setup = technique.apply(setup)
    Trainer(setup, seed).steps(UPDATES)
