"""A gate's verdict for people and for programs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from reports.formats import ci
from reports.text import gate
from results import judgement
from results.calibration import calibrated
from results.decision import Verdict
from results.exit_code import ExitCode
from results.gate import Finding, Limits, Referee, overall
from results.judgement import Judgement
from tests.pairs import pair
from tests.reports.synthetic import HOSTILE


def found(ratio: float, name: str = "gpt2/tiny") -> Finding:
    pairs = [pair(index, ratio, workload=name) for index in range(8)]
    (finding,) = Referee({name: Limits()}, {}, needs_checkout=False).conclude(pairs)
    return finding


def made(*findings: Finding, **changes: Any) -> Judgement:
    fields: dict[str, Any] = {
        "verdict": overall(findings),
        "advisory": "this machine is not calibrated",
        "sides": {"base": "1a2b3c4d5e, fp32", "head": "5e4d3c2b1a, fp32"},
        "findings": findings,
        "acknowledged": (),
        "calibration": calibrated([]),
        "machine_id": "m1",
        "device": "cpu",
        "device_name": "A CPU",
        "unseen": ("CPU heat",),
        "seed": 7,
        "started_at": "2026-01-01T00:00:00+00:00",
        "seconds": 81.0,
        "version": "0",
        "command": "trainpace gate",
    }
    return Judgement(**fields | changes)


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (Verdict.PASS, ExitCode.PASS),
        (Verdict.REGRESSION, ExitCode.REGRESSION),
        (Verdict.INCONCLUSIVE, ExitCode.INCONCLUSIVE),
        (Verdict.INVALID, ExitCode.INVALID),
    ],
)
def test_nothing_but_a_pass_exits_with_0(verdict: Verdict, code: ExitCode) -> None:
    given = made(found(1.0), verdict=verdict)
    assert given.exit_code(strict=False) == code
    assert given.exit_code(strict=True) == (ExitCode.INCONCLUSIVE if verdict is Verdict.PASS else code)
    assert dataclasses.replace(given, advisory=None).exit_code(strict=True) == code
    assert (code == 0) == (verdict is Verdict.PASS)


def test_the_text_has_the_interval_and_what_could_have_been_seen() -> None:
    finding = found(1.08)
    text = gate.text(made(finding))
    assert text.startswith("regression: proven to be worse than tolerated (advisory)")
    assert finding.time is not None and finding.time.least_seen is not None
    assert f"{finding.time.ratio:.3f}x [" in text and f"{finding.time.least_seen:.3f}x" in text
    assert "seed 7" in text and "81 s" in text and "this machine does not show: CPU heat" in text


def test_a_pass_between_the_margins_says_that_the_head_seems_slower() -> None:
    words = "seems to be slower than tolerated"
    between = dataclasses.replace(found(1.02), verdict=Verdict.PASS)
    assert words in gate.text(made(between))
    assert words not in gate.text(made(found(1.0)))


def test_what_is_unknown_is_not_made_up() -> None:
    (finding,) = Referee({"gone": Limits()}, {"gone": "head cannot run it"}, needs_checkout=False).conclude([])
    text = gate.text(made(finding))
    assert "nan" not in text and "None" not in text
    assert "gone: head cannot run it" in text


def test_markdown_puts_changed_rows_first_and_stays_within_what_a_comment_holds() -> None:
    same = found(1.0)
    passed = [dataclasses.replace(same, workload=f"model{index:04}" + "x" * 60) for index in range(600)]
    text = gate.markdown(made(*passed, found(1.08, "slow|model")))
    assert text.startswith(gate.MARK)
    assert len(text) < 65_536
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[2].startswith("| slow\\|model | regression")
    assert "more workloads are not shown" in text


def test_what_users_write_does_not_break_out_of_the_formats() -> None:
    finding = dataclasses.replace(found(1.08), workload=HOSTILE, reasons=("50% worse\n::error::x", "bell \x07"))
    given = made(finding)
    assert "<script" not in gate.markdown(given)
    (annotation,) = ci.github(given)
    assert annotation.count("\n") == 0 and "50%25 worse%0A" in annotation
    case = ElementTree.fromstring(ci.junit(given)).find(".//testcase")
    assert case is not None and case.get("name") == HOSTILE


def test_annotations_are_no_more_than_the_platform_shows() -> None:
    findings = [dataclasses.replace(found(1.08), workload=f"m{index}") for index in range(30)]
    lines = ci.github(made(*findings))
    assert len(lines) == ci.MOST_ANNOTATIONS
    assert lines[0].startswith("::error title=m0%3A regression::") and "21 more workloads" in lines[-1]
    assert ci.github(made(found(1.0)))[0].startswith("::notice ")


def test_junit_fails_what_regressed_and_errs_on_what_is_not_known() -> None:
    inconclusive = dataclasses.replace(found(1.0, "b"), verdict=Verdict.INCONCLUSIVE)
    root = ElementTree.fromstring(ci.junit(made(found(1.08, "a"), inconclusive, found(1.0, "c"))))
    suite = root.find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    assert [len(case) for case in suite] == [1, 1, 0]


def test_a_verdict_is_kept_as_json(tmp_path: Path) -> None:
    file = tmp_path / "gate.json"
    judgement.write(made(found(1.08)), file)
    kept = json.loads(file.read_text())
    assert kept["verdict"] == "regression" and kept["findings"][0]["time"]["repetitions"] == 8
