"""Keeps import-time messages of libraries that nobody can use off the terminal and out of logs."""

from __future__ import annotations

import logging


def quieten() -> None:
    """Filter them in this process, and in those forked from it."""
    # torchao reports each of its GPU kernels that it cannot load, even on machines without a GPU. Code that needs such
    # a kernel and does not find it fails with its own message.
    logging.getLogger("torchao").addFilter(lambda record: not record.getMessage().startswith("Failed to load"))
    # torch tells the authors of torchao what they will have to change.
    logging.getLogger("torch.utils._pytree").addFilter(lambda record: "is an Enum subclass" not in record.getMessage())
