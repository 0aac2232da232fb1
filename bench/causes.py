"""Why something failed, in one line: the whole root cause, and nothing of the machinery around it."""

from __future__ import annotations

import re
import signal
from pathlib import Path

LONGEST = 400
"""The longest reason, in characters; some libraries put whole manuals into their messages."""

_MACHINERY = re.compile(
    r"\s*(Exception raised from |frame #\d|For debugging consider|Traceback \(most recent call last\))"
)
"""Where torch's C++ code begins to describe where it was."""

_RAISED = re.compile(r"^(?:\w+\.)*[A-Z]\w*(?:Error|Exception|Warning|Interrupt|Exit|Iteration|Invalid)?: \S")
"""The last line of a traceback, which has the exception's message."""


_ECHO = re.compile(r"closed by peer|reset by peer|Broken pipe|remote (worker|process)", re.IGNORECASE)
"""What gloo and NCCL report in a rank whose partner is gone."""


class Unfinished(Exception):
    """A run was interrupted, or could not be stored. What was finished is kept in `folder`, from which the run can be
    resumed. `interrupted` tells the first case from the second."""

    def __init__(self, reason: str, folder: Path, *, interrupted: bool) -> None:
        super().__init__(reason)
        self.folder, self.interrupted = folder, interrupted


class DamagedRecords(UserWarning):
    """A file of records has changed since it was written. It is set aside, and all others are read."""


def is_echo(reason: str) -> bool:
    """Whether a rank only reports that another one has failed."""
    return _ECHO.search(reason) is not None


def killed_by(number: int) -> str:
    """How a process ended that was killed by a signal."""
    return f"killed by {signal.Signals(number).name}"


def root_cause(error: BaseException) -> str:
    """`Type: message` of the exception at the bottom. For an error in a loader's worker, it is read from the worker's
    traceback."""
    text = str(error)
    if "Original Traceback (most recent call last)" in text:
        lines = text.splitlines()
        raised = [index for index, line in enumerate(lines) if _RAISED.match(line)]
        if raised:
            return one_line("\n".join(lines[raised[-1] :]))
    said = one_line(text)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def one_line(text: str) -> str:
    """A message of several lines as one line. It ends where the machinery is described, or at the longest length."""
    kept: list[str] = []
    for line in text.strip().splitlines():
        if _MACHINERY.match(line):
            break
        kept.append(line.strip())
    joined = " ".join(filter(None, kept))
    return joined if len(joined) <= LONGEST else f"{joined[: LONGEST - 1].rstrip()}…"


def unwritten(error: OSError) -> str:
    """What could not be read or written, and why."""
    where = f"{str(error.filename)!r} " if error.filename is not None else ""
    return f"{where}could not be read or written: {error.strerror or error}"
