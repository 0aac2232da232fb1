"""What the gate's command ends with."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """0 is a proof of no harm and nothing else is."""

    PASS = 0
    REGRESSION = 1
    USAGE = 2
    INCONCLUSIVE = 3
    INVALID = 4
