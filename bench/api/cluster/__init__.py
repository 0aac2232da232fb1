"""Sweeps over the machines of a cluster: heats are tasks, and existing engines place them.

`heats.py` defines a task, `leading.py` hands tasks out, and each other file passes them to one engine.
"""

from __future__ import annotations


def check(on: str) -> None:
    """Raises ValueError if `on` does not name a cluster. Whether the cluster exists, only connecting shows."""
    if on not in ("auto", "slurm") and not on.startswith("ray://"):
        raise ValueError(
            f"--on {on!r} is not a cluster: give ray://HOST:PORT, auto (the Ray cluster of this machine) or slurm"
        )
