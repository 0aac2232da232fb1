"""Sweeps over the machines of a cluster: heats are tasks, and engines that exist place them.

`heats.py` says what a task is, `leading.py` hands them out, and each other file gives them to one engine.
"""

from __future__ import annotations


def check(on: str) -> None:
    """Raises ValueError for what names no cluster. Whether it is there, only connecting tells."""
    if on not in ("auto", "slurm") and not on.startswith("ray://"):
        raise ValueError(
            f"--on {on!r} is not a cluster: give ray://HOST:PORT, auto (the Ray cluster of this machine) or slurm"
        )
