"""No fault that blinds a comparison lets the gate pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.telemetry import conditions
from results.exit_code import ExitCode
from tests import mutations
from tests.mutations import MUTANTS, Mutant

pytestmark = pytest.mark.long

SHARES = {"foreign CPU load": "FOREIGN_SHARE", "steal time": "STEAL_SHARE"}
"""The limit that each fault exceeds. For other faults the limits are lifted, because other tests may run meanwhile."""


SAME_WAY = (
    "foreign GPU load",
    "a CPU quota",
    "a hot CPU",
    "a hot GPU",
    "a clock that is set",
    "a clock that is slewed",
    "a machine that sleeps",
    "another clock",
    "half the sequence",
    "half the batch, later",
    "one batch for ever",
    "a smaller model",
    "frozen parameters",
    "NaN loss",
    "NaN times",
    "missing in the base",
)
"""Mutants that are caught in the same way as others: readings like "steal time", which tests of conditions tell apart,
and work like "half the batch", "unequal counts" and "renamed workload". The page of all mutants tries them in full."""


def lift(monkeypatch: pytest.MonkeyPatch, fault: str = "") -> None:
    for name, share in SHARES.items():
        if name != fault:
            monkeypatch.setattr(conditions, share, 1.0)


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(
            mutant,
            id=mutant.name.replace(" ", "-"),
            marks=[pytest.mark.alone] if mutant.name == "foreign CPU load" else [],
        )
        for mutant in MUTANTS
        if mutant.name not in SAME_WAY
    ],
)
def test_a_fault_never_passes(mutant: Mutant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lift(monkeypatch, mutant.name)
    code, output = mutations.run(mutant, tmp_path / "repository")
    assert code == mutant.code and code != 0, output
    assert mutant.words in output


@pytest.mark.alone
def test_without_a_fault_the_same_gate_comes_to_a_verdict_on_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise all mutants might be caught for one and the same reason."""
    lift(monkeypatch)
    sound = Mutant(name="none", code=ExitCode.PASS, words="", settings="[tool.trainpace.gate]\nharm = 0.9\n")
    code, output = mutations.run(sound, tmp_path / "repository")
    assert code == 0, output
    assert "pass: any slow-down" in output
