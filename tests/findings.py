"""What a finding of the conformance run must be: ok, unless a reason why it cannot be is known beforehand."""

from __future__ import annotations

from harness.heats.conformance import Finding
from harness.record import Status

BESIDE = {"batch_per_rank": ("ddp_2", "batch_per_rank")}
"""Techniques that make no sense alone, with a composition for each."""


def composition(name: str) -> tuple[str, ...]:
    """The composition in which a technique is tried: itself, if it makes sense alone."""
    return BESIDE.get(name, (name,))


def hold(finding: Finding, unmet: str | None, refusal: str | None) -> None:
    """Assert that the finding is ok, or unsupported for exactly the reason that was given before the run.

    `unmet` is the result of `bench.composition.unmet`. `refusal` is part of the message with which the technique is
    known to refuse this model when it is applied.
    """
    if unmet is not None:
        assert (finding.status, finding.reason) == (Status.UNSUPPORTED, unmet), finding
    elif refusal is not None:
        assert finding.status is Status.UNSUPPORTED, finding
        assert finding.reason is not None and refusal in finding.reason, finding
    else:
        assert finding.status is Status.OK, finding
