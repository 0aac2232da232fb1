"""How the loss of a model falls with its size and with the text that it has seen: a law that is fitted to short
trainings on this machine, and what it says of longer ones.

The law is that of Hoffmann et al. 2022 (arXiv 2203.15556, approach 3): what no model can learn, what this size cannot,
and what this much text has not taught. Exponents begin where that paper found them, and move as far as the trainings
say; each size may lie beside the law by a little, because sizes of a family do not differ in width alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from results.statistics import CONFIDENCE

PARAMETER_EXPONENT, TOKEN_EXPONENT = (0.34, 0.15), (0.28, 0.08)
"""Where they are looked for, and by how much they may be off: one standard deviation."""

NOISE = 0.005
"""Of the logarithm of a loss: trainings of two seeds differ by about so much, and more is learnt from the fit."""

BESIDE_THE_LAW = 0.03
"""Of the logarithm of a loss: how far a size may lie beside the law."""

LEAST_LOSS, USUAL_LOSS = 0.05, 1.0
"""What no model can learn is somewhere between these, in nats a byte: the first is hardly anything."""


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
        self._seen = list(seen)
        self._scale = (
            math.exp(float(np.mean([math.log(item.parameters) for item in seen]))),
            math.exp(float(np.mean([math.log(item.text_bytes) for item in seen]))),
        )
        usual = float(np.mean([item.loss for item in seen]))
        begin = [math.log(usual / 3)] * 3 + [PARAMETER_EXPONENT[0], TOKEN_EXPONENT[0]] + [0.0] * len(self._sizes)
        self._found = optimize.least_squares(self._residuals, begin, x_scale="jac")
        freedom = max(1, len(seen) - 3)
        own = float((self._residuals(self._found.x)[: len(seen)] ** 2).sum()) / freedom
        # What lies farther from the law than two seeds do makes everything less sure.
        self._spread = max(1.0, math.sqrt(own))
        self._freedom = freedom
        jacobian = np.asarray(self._found.jac)
        self._covariance = np.linalg.pinv(jacobian.T @ jacobian)

    def expected(self, parameters: int, text_bytes: int) -> Expected:
        """The loss of a model of a size that was seen, or of another, after so much text."""
        log_loss, slope = self._log_loss(self._found.x, parameters, text_bytes), self._slope(parameters, text_bytes)
        unseen = 0.0 if parameters in self._sizes else BESIDE_THE_LAW
        deviation = self._spread * math.sqrt(float(slope @ self._covariance @ slope) + NOISE**2 + unseen**2)
        reach = deviation * float(stats.t.ppf((1 + CONFIDENCE) / 2, self._freedom))
        return Expected(loss=math.exp(log_loss), low=math.exp(log_loss - reach), high=math.exp(log_loss + reach))

    def _log_loss(self, law: np.ndarray, parameters: int, text_bytes: int) -> float:
        never, size, text, by_size, by_text, *beside = law
        total = (
            math.exp(never)
            + math.exp(size) * (self._scale[0] / parameters) ** by_size
            + math.exp(text) * (self._scale[1] / text_bytes) ** by_text
        )
        own = beside[self._sizes.index(parameters)] if parameters in self._sizes else 0.0
        return math.log(total) + own

    def _residuals(self, law: np.ndarray) -> np.ndarray:
        """Of the trainings, and then of what is held to be likely before they are seen."""
        never, _, _, by_size, by_text, *beside = law
        usual = (math.log(LEAST_LOSS) + math.log(USUAL_LOSS)) / 2
        width = (math.log(USUAL_LOSS) - math.log(LEAST_LOSS)) / 2
        return np.array(
            [
                *(
                    (self._log_loss(law, item.parameters, item.text_bytes) - math.log(item.loss)) / NOISE
                    for item in self._seen
                ),
                (never - usual) / width,
                (by_size - PARAMETER_EXPONENT[0]) / PARAMETER_EXPONENT[1],
                (by_text - TOKEN_EXPONENT[0]) / TOKEN_EXPONENT[1],
                *(item / BESIDE_THE_LAW for item in beside),
            ]
        )

    def _slope(self, parameters: int, text_bytes: int) -> np.ndarray:
        """Of the logarithm of the loss by each number of the law."""
        step, here = 1e-5, self._found.x
        moved = (here + step * np.eye(len(here))[index] for index in range(len(here)))
        middle = self._log_loss(here, parameters, text_bytes)
        return np.array([(self._log_loss(law, parameters, text_bytes) - middle) / step for law in moved])
