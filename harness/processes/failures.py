"""How work in another process can fail. Code that only reports it, such as the command line, needs no other import."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.record import Status


class ArmFailed(Exception):
    """An arm could not continue; status and reason go into its record."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class ForkServerFailed(Exception):
    """The fork server could not start, or died."""
