"""What is known about a machine's gate: it is counted correctly, and nothing is claimed beyond the counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reports.text import calibrated as page
from results import calibration, idle
from results.calibration import Outcome, Rate, calibrated, needed, upper_bound, why_advisory
from results.decision import Margins, Verdict
from results.gate import Limits
from tests import ROOT

DOCS = ROOT / "docs"


def outcome(verdict: Verdict = Verdict.PASS, slowdown: float = 0.0, **changes: Any) -> Outcome:
    fields: dict[str, Any] = {
        "method": calibration.METHOD,
        "version": "0",
        "at": "2026-01-01T00:00:00+00:00",
        "workload": "gpt2/tiny",
        "slowdown": slowdown,
        "held_share": slowdown,
        "limits": Limits(),
        "verdict": verdict,
        "ratio": 1 + slowdown,
        "ratio_low": 0.99 + slowdown,
        "ratio_high": 1.01 + slowdown,
        "repetitions": 8,
        "dropped": 0,
        "seconds": 80.0,
        "reasons": [],
        "log_ratios": [0.01, -0.01],
    }
    return Outcome(**fields | changes)


def test_the_bound_is_that_of_clopper_and_pearson() -> None:
    # With no event in n tries, the bound is 1 - 0.05^(1/n).
    assert upper_bound(Rate(seen=0, tries=40)) == pytest.approx(1 - 0.05 ** (1 / 40))
    assert upper_bound(Rate(seen=3, tries=3)) == 1.0
    assert upper_bound(Rate(seen=0, tries=0)) is None
    assert needed(Rate(seen=0, tries=0)) == 149
    assert needed(Rate(seen=50, tries=100)) is None


def test_everything_is_counted_where_it_belongs() -> None:
    found = calibrated(
        [
            *[outcome()] * 7,
            outcome(Verdict.REGRESSION),
            outcome(Verdict.INCONCLUSIVE),
            outcome(Verdict.INVALID, ratio_low=None, ratio_high=None, log_ratios=[]),
            outcome(Verdict.REGRESSION, 0.05),
            outcome(Verdict.INCONCLUSIVE, 0.05, held_share=0.2),
        ]
    )
    assert found.false_alarms == Rate(seen=1, tries=9)
    assert (found.passed, found.invalid) == (Rate(seen=7, tries=10), Rate(seen=1, tries=10))
    assert found.caught == {0.05: Rate(seen=1, tries=2)}
    # The second slow-down lies above its interval.
    assert found.covered == Rate(seen=10, tries=11)
    assert found.above == Rate(seen=9, tries=18)
    assert found.above_p == 1.0
    # The two repetitions of each outcome lie on opposite sides: nine times out of nine has p = 2 / 512.
    assert found.alike == Rate(seen=0, tries=9)
    assert found.alike_p == pytest.approx(2 / 512)


def test_what_had_no_time_for_a_look_proves_nothing() -> None:
    assert "not calibrated" in (why_advisory(calibrated([outcome(Verdict.INCONCLUSIVE, repetitions=0)] * 149)) or "")


def test_a_gate_advises_until_enough_is_known() -> None:
    assert "not calibrated" in (why_advisory(calibrated([])) or "")
    assert "109 more comparisons" in (why_advisory(calibrated([outcome()] * 40)) or "")
    assert why_advisory(calibrated([outcome()] * 149)) is None
    assert "5." in (why_advisory(calibrated([outcome(Verdict.REGRESSION), *[outcome()] * 80])) or "")


def test_outcomes_are_kept_a_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert calibration.load("m1", []) == []
    first, other = outcome(), outcome(method=calibration.METHOD + 1)
    file = calibration.append("m1", first)
    calibration.append("m1", other)
    assert file == tmp_path / "trainpace" / "calibration" / "m1.jsonl"
    # Outcomes of another method say nothing about this one.
    assert calibration.load("m1", [Limits()]) == [first]
    assert calibration.load("m2", []) == []
    # A gate that tolerates less may raise false alarms where this one did not.
    assert calibration.load("m1", [Limits(), Limits(time=Margins(tolerance=0.005))]) == []
    assert calibration.load("m1", [Limits(memory=0.1)]) == [first]
    file.write_text(file.read_text() + "{")
    with pytest.raises(ValueError, match=r"m1\.jsonl"):
        calibration.load("m1", [])


@pytest.mark.parametrize("name", ["300s", "120s"])
def test_the_page_is_what_its_outcomes_add_up_to(name: str) -> None:
    file = DOCS / "calibration" / f"{name}.jsonl"
    shown = page.of_gates(calibration.read(file))
    assert shown in (DOCS / "calibration.md").read_text(), f"put into it what `trainpace calibration {file}` prints"


def test_the_page_adds_up_both_machines() -> None:
    heats = [heat for name in ("run-epyc", "run-xeon") for heat in idle.read(DOCS / "calibration" / f"{name}.jsonl")]
    held, intervals = (sum(getattr(heat, name) for heat in heats) for name in ("held", "intervals"))
    false = sum(heat.false_directions > 0 for heat in heats)
    words = " ".join((DOCS / "calibration.md").read_text().split())
    assert (
        f"{len(heats)} heats, of which {false} had a false direction, and {held} of {intervals} single intervals "
        f"({100 * held / intervals:.1f} %) held 1."
    ) in words


@pytest.mark.parametrize("name", ["run-epyc", "run-xeon"])
def test_the_page_is_what_the_heats_of_runs_add_up_to(name: str) -> None:
    file = DOCS / "calibration" / f"{name}.jsonl"
    shown = page.of_runs(idle.read(file))
    assert shown in (DOCS / "calibration.md").read_text(), f"put into it what `trainpace calibration {file}` prints"
