"""The speed-ups of all rivals of a workload together: one linear model, one spread where it is shared, bounds that hold
for all of them at once.

Every repetition is a block in which each arm has one value, ln(time a token) of a fresh process, and the baseline
several. A value is the sum of what the arm has, what befell the whole block, and the luck of the process. How large
that luck is for an arm is poorly known from its own two or three values, so it is drawn towards what all arms show
(Smyth 2004, Linear models and empirical Bayes methods, sections 4 and 6.2). The bounds for all rivals together are
Sidak's (1967), which hold for Student's t whatever the rivals have in common.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from results.statistics import CONFIDENCE, POWER

SHARED_FROM = 6
"""Arms from which on their spreads show how much they share: with fewer, each difference has its own spread."""

UNLIKE_P = 0.01
"""An arm whose own spread is above the others' at this p, over all arms together, keeps its own."""

TINY = 1e-16
"""No spread is smaller: times of a clock are not exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A rival against the baseline: ln(baseline / rival) of the time a token, above 0 is faster.

    `low` and `high` are the 95 % interval of this one, `claim_low` and `claim_high` the bounds that hold for all rivals
    of the workload together with 95 %; None where there is no spread to be seen. `smallest_effect` is the least true
    value, in either direction, that would have been found with a probability of 80 %.
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
    """The variance of one process's value, known with so many degrees of freedom."""

    variance: float
    degrees: float


Block = Mapping[str, Sequence[float]]
"""By label, the values of an arm's processes in one repetition: ln(time a token)."""


def contrasts(
    blocks: Sequence[Block], baseline: str, rivals: Collection[str] | None = None, lent: Sequence[Block] = ()
) -> dict[str, Contrast]:
    """Each rival that has a value beside the baseline's in a block, against the baseline.

    Where `rivals` are given, it is these, and their bounds hold for them together; what other arms have, and `lent`
    blocks of other heats, only tells how much processes differ.
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
    """The variance of the mean difference. None where it is not known: from one repetition, and none that is shared."""
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
    # Of scipy.special throughout, which is there at once, where scipy.stats takes half a second to import.
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
    """The spread of each arm's processes, moderated: of an arm with one repetition it is what all the others show. None
    of an arm that has a spread of its own, and none at all where too few arms have several repetitions to share any."""
    unlike: dict[str, _Spread] = {}
    while len(own := _own_spreads(blocks)) >= SHARED_FROM:
        worst = max(own, key=lambda label: own[label].variance)
        # What swings widely moves the mean of its blocks, and with it what is left of all others.
        others = [{label: values for label, values in block.items() if label != worst} for block in blocks]
        calm = _own_spreads(others)
        if len(calm) >= SHARED_FROM and _is_unlike(own[worst], *_prior(calm), len(own)):
            blocks = others
            unlike[worst] = own[worst]
            continue
        most = sum(spread.degrees for spread in own.values())
        # What is seen once may be of either sort.
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
    """From the residuals of the model `value = arm + block`, each arm's mean square over its degrees of freedom: what
    the fit has left it of its values. Arms with less than half a degree have none."""
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
    """The mean variance, and with how many degrees of freedom it speaks for an arm: infinitely many where the arms'
    variances differ by no more than chance. The degrees are Smyth's, by the method of moments on the logarithms; his
    variance is a geometric mean, which is too small where arms differ and each is known by two or three values."""
    variances = np.array([spread.variance for spread in own.values()])
    halves = np.array([spread.degrees for spread in own.values()]) / 2
    typical = float(np.average(variances, weights=halves))
    logs = np.log(variances) - special.digamma(halves) + np.log(halves)
    beyond_chance = float(np.var(logs, ddof=1) - np.mean(special.polygamma(1, halves)))
    if beyond_chance <= 0:
        return typical, math.inf
    from scipy.optimize import brentq  # It takes a while to import, and few runs need it.

    return typical, 2 * float(brentq(lambda x: special.polygamma(1, x) - beyond_chance, 1e-6, 1e8))
