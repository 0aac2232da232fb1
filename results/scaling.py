"""How the loss of a model falls with its size and with the text that it has seen: a law that is fitted to short
trainings on this machine, and what it says of longer ones.

The law is a power law in parameters and text whose exponent of the text drifts: by each doubling of the text the
logarithm of the loss falls by a little more than by the one before, as in a model's first hours, or by a little less,
as the law of Hoffmann et al. 2022 (arXiv 2203.15556) has it of much text. Which of the two, and by how much, is found
from the trainings. Each size may lie beside the law by a little, fall a little faster or more slowly, and drift a
little more or less, because sizes of a family do not differ in width alone. All of this is linear in what is looked
for, and is found by Bayes' rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from results.statistics import CONFIDENCE

FALL, FALL_SPREAD = -0.1, 0.05
"""Of the logarithm of the loss by a doubling, of the parameters or of the text: where it is looked for, and how far it
may be off, as a standard deviation. The exponents of Hoffmann et al. (0.34 and 0.28) come to this where about half of
the loss can still be learnt."""

DRIFT_SPREAD = 0.01
"""Of the fall by a doubling of the text, at the next doubling."""

BESIDE_THE_LAW, FASTER_THAN_THE_LAW, DRIFT_BESIDE_THE_LAW = 0.03, 0.02, 0.007
"""How far a size may lie beside the law, its fall by a doubling of the text, and the drift of that."""

NOISE = 0.007
"""Of the logarithm of a loss: trainings of two seeds differ by about so much, and more is learnt from the fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A training from its first update to its last: of a model of so many parameters on so much text, and its loss in
    nats a byte, by which models can be compared that read text in other pieces."""

    parameters: int
    text_bytes: int
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A loss with its 95 % interval."""

    loss: float
    low: float
    high: float


class Law:
    """The law that fits what was seen best."""

    def __init__(self, seen: Sequence[Seen]) -> None:
        """Raises ValueError for fewer than two trainings of any one size: they do not tell how the loss falls."""
        self._sizes = sorted({item.parameters for item in seen})
        if max(sum(item.parameters == size for item in seen) for size in self._sizes) < 2:
            raise ValueError("no size was trained on two amounts of text: how its loss falls is not known")
        self._middle = (
            float(np.mean([math.log2(item.parameters) for item in seen])),
            float(np.mean([math.log2(item.text_bytes) for item in seen])),
        )
        losses = np.log([item.loss for item in seen])
        rows = np.array([self._row(item.parameters, item.text_bytes) for item in seen])
        each = len(self._sizes)
        usual = np.array([losses.mean(), FALL, FALL, 0.0, *[0.0] * (3 * each)])
        spreads = np.array(
            [
                *(math.log(10), FALL_SPREAD, FALL_SPREAD, DRIFT_SPREAD),
                *[BESIDE_THE_LAW] * each,
                *[FASTER_THAN_THE_LAW] * each,
                *[DRIFT_BESIDE_THE_LAW] * each,
            ]
        )
        self._covariance = np.linalg.inv(rows.T @ rows / NOISE**2 + np.diag(spreads**-2))
        self._law = self._covariance @ (rows.T @ losses / NOISE**2 + usual / spreads**2)
        self._freedom = max(1, len(seen) - 3)
        # What lies farther from the law than two seeds do makes everything less sure.
        own = float((((rows @ self._law - losses) / NOISE) ** 2).sum()) / self._freedom
        self._spread = max(1.0, math.sqrt(own))

    def expected(self, parameters: int, text_bytes: int) -> Expected:
        """The loss of a model of a size that was seen, or of another, after so much text."""
        row = self._row(parameters, text_bytes)
        log_loss = float(row @ self._law)
        each = BESIDE_THE_LAW, FASTER_THAN_THE_LAW * row[2], DRIFT_BESIDE_THE_LAW * row[3]
        beside = 0.0 if parameters in self._sizes else math.hypot(*each)
        deviation = self._spread * math.sqrt(float(row @ self._covariance @ row) + NOISE**2 + beside**2)
        reach = deviation * float(stats.t.ppf((1 + CONFIDENCE) / 2, self._freedom))
        return Expected(loss=math.exp(log_loss), low=math.exp(log_loss - reach), high=math.exp(log_loss + reach))

    def _row(self, parameters: int, text_bytes: int) -> np.ndarray:
        """What the numbers of the law are multiplied with: the level, the falls by a doubling of parameters and text,
        the drift of the latter, and of each size its own level, fall and drift."""
        size, text = math.log2(parameters) - self._middle[0], math.log2(text_bytes) - self._middle[1]
        own = np.array([float(parameters == other) for other in self._sizes])
        return np.concatenate([[1.0, size, text, text**2 / 2], own, text * own, text**2 / 2 * own])
