"""The speed-ups of all rivals of a workload together: one linear model, moderated spreads, simultaneous bounds.

Every repetition is a block in which each arm has one value, ln(time per token) of a fresh process, and the baseline
several. A value is the sum of an arm effect, a block effect and the noise of the process. An arm's own two or three
values say little about the size of its noise, so that is shrunk towards the noise of all arms (Smyth 2004, Linear
models and empirical Bayes methods, sections 4 and 6.2). The bounds for all rivals together are Sidak's (1967), which
hold for Student's t whatever the correlation between the rivals.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from results.statistics import CONFIDENCE, POWER

SHARED_FROM = 6
"""Spreads are moderated from this many arms on; with fewer, each difference has its own spread."""

UNLIKE_P = 0.01
"""An arm keeps its own spread if that is larger than the others' at this p, over all arms together."""

TINY = 1e-16
"""The least variance: times from a clock are not exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A rival against the baseline: ln(baseline / rival) of the time per token, above 0 is faster.

    `low` and `high` are the 95 % interval of this rival alone. `claim_low` and `claim_high` are bounds that hold for
    all rivals of the workload together with 95 %. All are None if the spread is unknown. `smallest_effect` is the least
    true value, in either direction, that would have been detected with a probability of 80 %.
    """

    estimate: float
    low: float | None = None
    high: float | None = None
    claim_low: float | None = None
    claim_high: float | None = None
    smallest_effect: float | None = None
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spread:
    """A variance, of one process's value or of a mean difference, with its degrees of freedom."""

    variance: float
    degrees: float


Block = Mapping[str, Sequence[float]]
"""By label, the values of an arm's processes in one repetition: ln(time per token)."""


def contrasts(
    blocks: Sequence[Block], baseline: str, rivals: Collection[str] | None = None, lent: Sequence[Block] = ()
) -> dict[str, Contrast]:
    """Each rival that shares a block with the baseline, against the baseline.

    If `rivals` are given, only these are compared, and the bounds hold for them together. Other arms, and `lent` blocks
    of other heats, only help to estimate how much processes differ.
    """
    shared = [block for block in blocks if block.get(baseline)]
    differences: dict[str, list[float]] = {}
    weights: dict[str, list[float]] = {}
    for block in shared:
        reference = block[baseline]
        for label, values in block.items():
            if label != baseline and values and (rivals is None or label in rivals):
                differences.setdefault(label, []).append(float(np.mean(reference) - np.mean(values)))
                weights.setdefault(label, []).append(1 / len(reference))
    spreads = _spreads([*shared, *lent])
    made = {}
    for label, found in differences.items():
        error = _error(found, weights[label], spreads.get(label), spreads.get(baseline))
        made[label] = _contrast(found, error, len(differences))
    return made


def _error(
    found: Sequence[float], weights: Sequence[float], own: _Spread | None, reference: _Spread | None
) -> _Spread | None:
    """The variance of the mean difference; None for a single repetition without a moderated spread."""
    count = len(found)
    if own is None or reference is None:
        if count < 2:
            return None
        return _Spread(variance=max(float(np.var(found, ddof=1)), TINY) / count, degrees=count - 1)
    parts = (own.variance / count, reference.variance * sum(weights) / count**2)
    # Satterthwaite's approximation for the sum of two independent estimates of a variance.
    degrees = sum(parts) ** 2 / (parts[0] ** 2 / own.degrees + parts[1] ** 2 / reference.degrees)
    return _Spread(variance=sum(parts), degrees=degrees)


def _contrast(found: Sequence[float], error: _Spread | None, rivals: int) -> Contrast:
    estimate, count = float(np.mean(found)), len(found)
    if error is None:
        return Contrast(estimate=estimate, method="one repetition")
    # scipy.special throughout: importing scipy.stats takes half a second.
    deviation = math.sqrt(error.variance)
    single = deviation * float(special.stdtrit(error.degrees, (1 + CONFIDENCE) / 2))
    together = deviation * float(special.stdtrit(error.degrees, (1 + CONFIDENCE ** (1 / rivals)) / 2))
    return Contrast(
        estimate=estimate,
        low=estimate - single,
        high=estimate + single,
        claim_low=estimate - together,
        claim_high=estimate + together,
        smallest_effect=together + deviation * float(special.stdtrit(error.degrees, POWER)),
        method=f"Student t, n={count}, {error.degrees:.0f} degrees of freedom",
    )


def _spreads(blocks: Sequence[Block]) -> dict[str, _Spread]:
    """The moderated spread of each arm's processes; an arm with one repetition gets that of the others. Arms that keep
    their own spread are left out. Empty if too few arms have several repetitions."""
    unlike: dict[str, _Spread] = {}
    while len(own := _own_spreads(blocks)) >= SHARED_FROM:
        worst = max(own, key=lambda label: own[label].variance)
        # An arm with a wide spread moves the mean of its blocks, and with it the residuals of all others.
        others = [{label: values for label, values in block.items() if label != worst} for block in blocks]
        calm = _own_spreads(others)
        if len(calm) >= SHARED_FROM and _is_unlike(own[worst], *_prior(calm), len(own)):
            blocks = others
            unlike[worst] = own[worst]
            continue
        most = sum(spread.degrees for spread in own.values())
        # An arm with a single repetition may belong to either group.
        once = _drawn_to(_Spread(variance=0.0, degrees=0.0), *_prior(own | unlike), most)
        labels = {label for block in blocks for label in block}
        prior = _prior(own)
        return {label: _drawn_to(own[label], *prior, most) if label in own else once for label in labels}
    return {}


def _drawn_to(spread: _Spread, typical: float, prior: float, most: float) -> _Spread:
    if math.isinf(prior):
        return _Spread(variance=typical, degrees=most)
    degrees = spread.degrees + prior
    variance = (spread.degrees * spread.variance + prior * typical) / degrees
    return _Spread(variance=variance, degrees=min(degrees, most))


def _is_unlike(spread: _Spread, typical: float, prior: float, arms: int) -> bool:
    ratio = spread.variance / typical
    p = (
        special.chdtrc(spread.degrees, ratio * spread.degrees)
        if math.isinf(prior)
        else special.fdtrc(spread.degrees, prior, ratio)
    )
    return bool(p < UNLIKE_P / arms)


def _own_spreads(blocks: Sequence[Block]) -> dict[str, _Spread]:
    """From the residuals of the model `value = arm + block`, each arm's sum of squares over its degrees of freedom: the
    number of its values less those that the fit uses up. Arms with at most half a degree are left out."""
    entries = [
        (label, index, value)
        for index, block in enumerate(blocks)
        for label, values in block.items()
        for value in values
    ]
    if not entries:
        return {}
    labels = sorted({label for label, _, _ in entries})
    design = np.zeros((len(entries), len(labels) + len(blocks)))
    for row, (label, index, _) in enumerate(entries):
        design[row, labels.index(label)] = design[row, len(labels) + index] = 1
    fitted = design @ np.linalg.pinv(design)
    values = np.array([value for _, _, value in entries])
    residuals, left = values - fitted @ values, 1 - np.diag(fitted)
    found = {}
    for label in labels:
        rows = [row for row, entry in enumerate(entries) if entry[0] == label]
        degrees = float(left[rows].sum())
        if degrees > 0.5:
            variance = max(float((residuals[rows] ** 2).sum()) / degrees, TINY)
            found[label] = _Spread(variance=variance, degrees=degrees)
    return found


def _prior(own: Mapping[str, _Spread]) -> tuple[float, float]:
    """The mean variance, and its degrees of freedom as a prior for each arm: infinitely many if the arms' variances
    differ by no more than chance. The degrees are Smyth's, by the method of moments on the logarithms. His variance is
    not used: it is a geometric mean, which is too small if arms differ and have only two or three values each."""
    variances = np.array([spread.variance for spread in own.values()])
    halves = np.array([spread.degrees for spread in own.values()]) / 2
    typical = float(np.average(variances, weights=halves))
    logs = np.log(variances) - special.digamma(halves) + np.log(halves)
    beyond_chance = float(np.var(logs, ddof=1) - np.mean(special.polygamma(1, halves)))
    if beyond_chance <= 0:
        return typical, math.inf
    from scipy.optimize import brentq  # Slow to import, and few runs need it.

    return typical, 2 * float(brentq(lambda x: special.polygamma(1, x) - beyond_chance, 1e-6, 1e8))
