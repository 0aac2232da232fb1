"""Every technique does the work that it claims, on both families: the tests that `trainpace check-technique` runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.composition import compose, unmet
from bench.host import Host
from bench.registry import techniques
from harness import conformance
from harness.conformance import Finding
from harness.nursery import Nursery
from harness.record import Status

HERE = Host(device="cpu")
OWN = [name for name, item in techniques().items() if item.family != "planted"]
RUNNABLE = [name for name in OWN if not unmet(compose([name]), HERE)]

BESIDE = {"batch_per_rank": ("ddp_2", "batch_per_rank")}
"""What makes no sense alone."""

REFUSED = {
    ("gpt2/nano", "flex_attention"): "has no backward pass",
    ("bert/nano", "flex_attention"): "has no backward pass",
    ("gpt2/nano", "sdpa_flash"): "without dropout",
    ("bert/nano", "sdpa_flash"): "without dropout",
    ("bert/nano", "chunked_loss"): "causal",
}
"""What a model of the two, or a CPU, truly cannot do, found out when the technique is applied; and why."""


@pytest.fixture(scope="module")
def findings(nursery: Nursery, text_folder: Path) -> dict[tuple[str, str], Finding]:
    """All of them in one run: the baseline is shared, and the machine is looked at once."""
    alone = [BESIDE.get(name, (name,)) for name in RUNNABLE]
    found = conformance.run(alone, nursery, batch=16, corpus=str(text_folder))
    return {(finding.workload, finding.techniques): finding for finding in found}


@pytest.mark.parametrize("model", conformance.MODELS)
@pytest.mark.parametrize("name", RUNNABLE)
def test_a_technique_keeps_its_word(findings: dict[tuple[str, str], Finding], model: str, name: str) -> None:
    finding = findings[model, "+".join(BESIDE.get(name, (name,)))]
    if (model, name) in REFUSED:
        assert finding.status is Status.UNSUPPORTED
        assert finding.reason is not None and REFUSED[model, name] in finding.reason
    else:
        assert finding.status is Status.OK, finding
        if techniques()[name].is_numerics_only:
            assert finding.loss_difference is not None


def test_what_cannot_run_here_says_why() -> None:
    reasons = {name: unmet(compose([name]), HERE) for name in OWN}
    told = {name: reason for name, reason in reasons.items() if reason}
    known = "needs .*GPU|needs 8 ranks|for the phases infer|adamw_loop is the baseline itself on cpu"
    assert all(re.search(known, reason) for reason in told.values()), told
