"""What libraries say while they are imported, and nobody can use, is kept off the terminal and out of logs."""

from __future__ import annotations

import logging


def quieten() -> None:
    """In this process, and in those that are forked from it."""
    # torchao tells of each of its kernels for GPUs that it cannot load, on machines that have no GPU too. What needs
    # such a kernel and does not find it fails in its own words.
    logging.getLogger("torchao").addFilter(lambda record: not record.getMessage().startswith("Failed to load"))
    # torch tells the authors of torchao what they will have to change.
    logging.getLogger("torch.utils._pytree").addFilter(lambda record: "is an Enum subclass" not in record.getMessage())
