"""Every technique does the work that it claims, on both families: the tests that `trainpace check-technique` runs."""

from __future__ import annotations

import pytest

from bench.registry import Host, compose, techniques, unmet
from harness import conformance
from harness.nursery import Nursery
from harness.record import Status

HERE = Host(device="cpu")
OWN = [name for name, item in techniques().items() if item.family != "planted"]
RUNNABLE = [name for name in OWN if not unmet(compose([name]), HERE)]


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_technique_keeps_its_word(nursery: Nursery, text_folder: str, name: str) -> None:
    findings = conformance.run([ALONE_IN_NEED.get(name, (name,))], nursery, corpus=str(text_folder), batch=16)
    assert len(findings) == len(conformance.MODELS)
    assert [finding.status for finding in findings] == [Status.OK, Status.OK], findings


ALONE_IN_NEED = {"batch_per_rank": ("ddp_2", "batch_per_rank")}
"""What makes no sense alone."""


def test_what_cannot_run_here_says_why() -> None:
    reasons = {name: unmet(compose([name]), HERE) for name in OWN}
    told = {name: reason for name, reason in reasons.items() if reason}
    assert all("GPU" in reason or "ranks" in reason for reason in told.values()), told
