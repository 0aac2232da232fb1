"""A gate's verdict for continuous integration: annotations for GitHub Actions, and JUnit XML for other systems."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from reports.text.gate import interval, notes, ordered, title
from results.decision import Verdict
from results.gate import Finding
from results.judgement import Judgement

MOST_ANNOTATIONS = 10
"""GitHub shows so many of each kind from one step, and drops the rest silently."""

MOST_LETTERS = 1000
"""The most characters of one annotation; nobody reads more."""

_KINDS = {
    Verdict.REGRESSION: "error",
    Verdict.INVALID: "error",
    Verdict.INCONCLUSIVE: "warning",
    Verdict.PASS: "notice",
}

# Characters that XML 1.0 cannot represent.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")


def github(judgement: Judgement) -> list[str]:
    """Workflow commands, the worst workloads first; the last one counts those beyond GitHub's limit."""
    found = [finding for finding in ordered(judgement.findings) if finding.verdict is not Verdict.PASS]
    shown = found if len(found) <= MOST_ANNOTATIONS else found[: MOST_ANNOTATIONS - 1]
    lines = [_annotation(_KINDS[item.verdict], f"{item.workload}: {item.verdict}", _sentence(item)) for item in shown]
    if len(found) > len(shown):
        lines.append(_annotation("warning", "trainpace gate", f"{len(found) - len(shown)} more workloads did not pass"))
    return lines or [_annotation("notice", "trainpace gate", title(judgement))]


def _annotation(kind: str, name: str, message: str) -> str:
    safe = _escaped(name).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={safe}::{_escaped(message[:MOST_LETTERS])}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _sentence(finding: Finding) -> str:
    time = finding.time
    paces = [f"time, head / base: {interval(time.ratio, time.ratio_low, time.ratio_high)}"] if time else []
    return "; ".join([*finding.reasons, *paces, f"{finding.repetitions} repetitions"])


def junit(judgement: Judgement) -> str:
    """One test case for each workload: a regression is a failure, and an inconclusive or invalid verdict an error."""
    verdicts = [finding.verdict for finding in judgement.findings]
    suite = ElementTree.Element(
        "testsuite",
        name="trainpace gate",
        tests=str(len(verdicts)),
        failures=str(verdicts.count(Verdict.REGRESSION)),
        errors=str(verdicts.count(Verdict.INVALID) + verdicts.count(Verdict.INCONCLUSIVE)),
        skipped="0",
        time=f"{judgement.seconds:.1f}",
        timestamp=judgement.started_at,
    )
    for finding in judgement.findings:
        case = ElementTree.SubElement(suite, "testcase", classname="trainpace.gate", name=_xml(finding.workload))
        if finding.verdict is not Verdict.PASS:
            kind = "failure" if finding.verdict is Verdict.REGRESSION else "error"
            problem = ElementTree.SubElement(case, kind, type=finding.verdict.value, message=_xml(_sentence(finding)))
            problem.text = _xml("\n".join(notes(judgement)))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _xml(text: str) -> str:
    return _NOT_XML.sub("?", text)
