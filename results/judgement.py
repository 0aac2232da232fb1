"""A gate's verdict with all that it rests on, as plain data that can be written and read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from results.calibration import Calibration
from results.decision import Verdict
from results.exit_code import ExitCode
from results.gate import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict over all workloads. `advisory` says why this machine's verdicts are only advice; None if they bind.

    `sides` describes base and head in words, `acknowledged` the slow-downs that were accepted. `unseen` lists
    disturbances that this machine cannot detect.
    """

    verdict: Verdict
    advisory: str | None
    sides: Mapping[str, str]
    findings: tuple[Finding, ...]
    acknowledged: tuple[str, ...]
    calibration: Calibration
    machine_id: str
    device: str
    device_name: str
    unseen: tuple[str, ...]
    seed: int
    started_at: str
    seconds: float
    version: str
    command: str

    def exit_code(self, *, strict: bool) -> ExitCode:
        """With `strict`, a pass that is only advice counts as inconclusive."""
        if strict and self.verdict is Verdict.PASS and self.advisory is not None:
            return ExitCode.INCONCLUSIVE
        return ExitCode[self.verdict.name]


def write(judgement: Judgement, file: Path) -> None:
    file.write_text(json.dumps(dataclasses.asdict(judgement), indent=2, default=str) + "\n", encoding="utf-8")
