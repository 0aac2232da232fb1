"""The exit codes of the gate's command."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """0 means proven harmless; nothing else does."""

    PASS = 0
    REGRESSION = 1
    USAGE = 2
    INCONCLUSIVE = 3
    INVALID = 4
