"""No fault that blinds a comparison lets the gate pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import conditions
from results.exit_code import ExitCode
from tests import mutations
from tests.mutations import MUTANTS, Mutant

pytestmark = [pytest.mark.long, pytest.mark.alone]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_fault_never_passes(mutant: Mutant, tmp_path: Path) -> None:
    code, output = mutations.run(mutant, tmp_path / "repository")
    assert code == mutant.code and code != 0, output
    assert mutant.words in output


def test_without_a_fault_the_same_gate_comes_to_a_verdict_on_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every mutant could be caught for one and the same reason."""
    monkeypatch.setattr(conditions, "FOREIGN_SHARE", 1.0)
    monkeypatch.setattr(conditions, "STEAL_SHARE", 1.0)
    sound = Mutant(name="none", code=ExitCode.PASS, words="", settings="[tool.trainpace.gate]\nharm = 0.9\n")
    code, output = mutations.run(sound, tmp_path / "repository")
    assert code == 0, output
    assert "pass: proven" in output
