"""How reliable the gate is on this machine: comparisons of a base with itself, and with an injected slow-down."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from results import kept
from results.decision import LOOKS, Margins, Verdict
from results.gate import Limits

METHOD = 5
"""The version of the method of measuring and deciding. Outcomes of another version say nothing about this one."""

BOUND_CONFIDENCE = 0.95
TOLERATED_BOUND = 0.02
"""A gate whose rate of false alarms may be higher than this only advises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One comparison with a known truth: the head is slower than the base by the share `slowdown` (`held_share`, as
    measured in the head), or 0. `log_ratios` has one value per repetition, in order."""

    method: int
    version: str
    at: str
    workload: str
    slowdown: float
    held_share: float
    limits: Limits
    verdict: Verdict
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    repetitions: int
    dropped: int
    seconds: float
    reasons: list[str]
    log_ratios: list[float]

    @property
    def looked(self) -> bool:
        """Whether there were enough repetitions for a look, and so for an error."""
        return self.repetitions >= min(LOOKS)

    def is_as_strict_as(self, limits: Limits) -> bool:
        """Whether its limits were no wider: then it called at least as much a regression."""
        return self.limits.time.tolerance <= limits.time.tolerance and self.limits.memory <= limits.memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How often something was seen, in how many tries."""

    seen: int
    tries: int

    def describe(self) -> str:
        return f"{self.seen} of {self.tries}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The outcomes of one machine in total. Those without time for a look say nothing about the gate's errors.

    `false_alarm_bound` is the upper end of the one-sided 95 % Clopper-Pearson interval of the share of regressions
    among the comparisons of a base with itself that came to a verdict; None without any. `caught` is by slow-down,
    smallest first. `covered` counts the 95 % intervals that contain the truth. In comparisons of a base with itself,
    `above` counts the repetitions whose head was slower, and `alike` the pairs of consecutive repetitions in which the
    same side was slower. If repetitions are independent and neither side is favoured, both shares are one half;
    `above_p` and `alike_p` are the binomial p of that.
    """

    false_alarms: Rate
    false_alarm_bound: float | None
    passed: Rate
    invalid: Rate
    caught: dict[float, Rate]
    covered: Rate
    above: Rate
    above_p: float | None
    alike: Rate
    alike_p: float | None


def append(machine_id: str, outcome: Outcome) -> Path:
    """Store one outcome of a machine."""
    return kept.append(machine_id, outcome)


def load(machine_id: str, limits: Collection[Limits]) -> list[Outcome]:
    """The machine's outcomes by the current method whose limits were no wider than any of `limits`."""
    found = kept.load(machine_id, _outcome, METHOD)
    return [outcome for outcome in found if all(outcome.is_as_strict_as(item) for item in limits)]


def read(file: Path) -> list[Outcome]:
    """The outcomes in a file by the latest method in it. Raises ValueError for a line that cannot be read."""
    return kept.read(file, _outcome, None)


def _outcome(fields: dict[str, Any]) -> Outcome:
    limits = Limits(**fields["limits"] | {"time": Margins(**fields["limits"]["time"])})
    return Outcome(**fields | {"verdict": Verdict(fields["verdict"]), "limits": limits})


def calibrated(outcomes: Collection[Outcome]) -> Calibration:
    """The counts and rates of these outcomes."""
    equal = [outcome for outcome in outcomes if outcome.slowdown == 0]
    judged = [outcome for outcome in equal if outcome.verdict is not Verdict.INVALID and outcome.looked]
    false_alarms = _called(judged, Verdict.REGRESSION)
    slowed: dict[float, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.slowdown > 0:
            slowed[outcome.slowdown].append(outcome)
    signs = [[ratio > 0 for ratio in outcome.log_ratios if ratio != 0] for outcome in equal]
    above = _share([sign for found in signs for sign in found])
    alike = _share([one == other for found in signs for one, other in itertools.pairwise(found)])
    bounded = [outcome for outcome in outcomes if outcome.ratio_low is not None and outcome.ratio_high is not None]
    return Calibration(
        false_alarms=false_alarms,
        false_alarm_bound=upper_bound(false_alarms),
        passed=_called(equal, Verdict.PASS),
        invalid=_called(equal, Verdict.INVALID),
        caught={share: _called(found, Verdict.REGRESSION) for share, found in sorted(slowed.items())},
        covered=_share([covers(outcome) for outcome in bounded]),
        above=above,
        above_p=_half_p(above),
        alike=alike,
        alike_p=_half_p(alike),
    )


def _called(found: Sequence[Outcome], verdict: Verdict) -> Rate:
    return _share([outcome.verdict is verdict for outcome in found])


def _share(found: Sequence[bool]) -> Rate:
    return Rate(seen=sum(found), tries=len(found))


def _half_p(rate: Rate) -> float | None:
    """The two-sided binomial p of a true rate of one half; None without tries."""
    return float(stats.binomtest(rate.seen, rate.tries).pvalue) if rate.tries else None


def covers(outcome: Outcome) -> bool:
    """Whether the interval contains the slow-down that was actually injected."""
    assert outcome.ratio_low is not None and outcome.ratio_high is not None
    return outcome.ratio_low <= 1 + outcome.held_share <= outcome.ratio_high


def upper_bound(rate: Rate) -> float | None:
    """The one-sided 95 % upper confidence bound of the rate (Clopper and Pearson 1934); None without tries."""
    if not rate.tries:
        return None
    if rate.seen == rate.tries:
        return 1.0
    return float(stats.beta.ppf(BOUND_CONFIDENCE, rate.seen + 1, rate.tries - rate.seen))


def why_advisory(calibration: Calibration) -> str | None:
    """Why verdicts of this machine are only advice, in words; None if false alarms are known to be rare."""
    bound = calibration.false_alarm_bound
    if bound is None:
        return "this machine is not calibrated: run `trainpace gate --calibrate 150` on it"
    if bound > TOLERATED_BOUND:
        missing = needed(calibration.false_alarms)
        more = f": {missing} more comparisons without one would be enough" if missing else ""
        return f"false alarms may be as frequent as {bound:.1%} on this machine, more than {TOLERATED_BOUND:.0%}{more}"
    return None


def needed(rate: Rate) -> int | None:
    """How many more comparisons without a false alarm bring the bound down to TOLERATED_BOUND; None if over 1000."""
    for more in range(1001):
        bound = upper_bound(Rate(seen=rate.seen, tries=rate.tries + more))
        if bound is not None and bound <= TOLERATED_BOUND:
            return more
    return None
