"""How the loss of a model falls with its size and with the text that it has seen: a law that is fitted to short
trainings on this machine, and what it says of longer ones.

A model begins with what letters alone tell, learns what goes together, and comes to the least that its size can. So
its loss is a logistic curve over the logarithm of the text,

    loss = least + (first - least) / (1 + (text / halfway) ** steepness)

which for much text is the law of Hoffmann et al. 2022 (arXiv 2203.15556), least + constant * text ** -steepness, and
for little levels off, where a power law would rise without end. Sizes of a family share the law: the logarithms of
`least` and of `halfway` fall on straight lines with that of the parameters, and each size may lie beside the law by a
little, because sizes do not differ in width alone. What is likely before anything is seen comes from trainings of
small models of bytes; the most probable law is found by least squares, and how sure it is from its curvature there
(Laplace).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from results.statistics import CONFIDENCE


@dataclass(frozen=True, slots=True)
class _Prior:
    """Where a number is looked for, and how far it may be off, as a standard deviation."""

    usual: float
    spread: float


LAW = (
    _Prior(math.log(0.95), 0.3),  # the least loss of the middle size, in nats a byte, as a logarithm
    _Prior(-0.04, 0.03),  # and by how much it falls by a doubling of the parameters
    _Prior(math.log(3.1), 0.3),  # the first loss, likewise: of bytes that are drawn after the letter before
    _Prior(0.6, 0.25),  # the steepness
    _Prior(0.0, 2.0),  # the text at which half is learnt, as a logarithm of that over the middle of what was seen
    _Prior(-0.1, 0.2),  # and by how much it falls by a doubling of the parameters
)

BESIDE = (_Prior(0.0, 0.05), _Prior(0.0, 0.03), _Prior(0.0, 0.1), _Prior(0.0, 0.3))
"""How far a size may lie beside the law: in its least loss, its first, its steepness, and its text halfway."""

NOISE = 0.012
"""Of the logarithm of a loss: trainings of two seeds differ by about so much, and more is learnt from the fit."""

STEP = 1e-5
"""By which a number of the law is moved, to see what hangs on it."""


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
            float(np.mean([math.log2(size) for size in self._sizes])),
            float(np.mean([math.log(item.text_bytes) for item in seen])),
        )
        priors = (*LAW, *BESIDE * len(self._sizes))
        usual, spreads = (np.array([getattr(item, name) for item in priors]) for name in ("usual", "spread"))
        losses = np.log([item.loss for item in seen])

        def misfit(numbers: np.ndarray) -> np.ndarray:
            said = [self._log_loss(numbers, item.parameters, item.text_bytes) for item in seen]
            return np.concatenate([(np.array(said) - losses) / NOISE, (numbers - usual) / spreads])

        found = optimize.least_squares(misfit, usual)
        jacobian = np.asarray(found.jac)
        self._numbers, self._covariance = found.x, np.linalg.inv(jacobian.T @ jacobian)
        self._freedom = max(1, len(seen) - 3)
        # What lies farther from the law than two seeds do makes everything less sure.
        own = float((found.fun[: len(seen)] ** 2).sum()) / self._freedom
        self._spread = max(1.0, math.sqrt(own))

    def expected(self, parameters: int, text_bytes: int) -> Expected:
        """The loss of a model of a size that was seen, or of another, after so much text."""
        log_loss = self._log_loss(self._numbers, parameters, text_bytes)
        variance = NOISE**2
        if parameters in self._sizes:
            slopes = self._slopes(self._numbers, parameters, text_bytes)
            variance += float(slopes @ self._covariance @ slopes)
        else:
            # What such a size may lie beside the law is not in what was fitted.
            numbers = np.concatenate([self._numbers, np.zeros(len(BESIDE))])
            slopes = self._slopes(numbers, parameters, text_bytes)
            known, own = slopes[: -len(BESIDE)], slopes[-len(BESIDE) :]
            spreads = np.array([item.spread for item in BESIDE])
            variance += float(known @ self._covariance @ known) + float(((own * spreads) ** 2).sum())
        reach = self._spread * math.sqrt(variance) * float(stats.t.ppf((1 + CONFIDENCE) / 2, self._freedom))
        return Expected(loss=math.exp(log_loss), low=math.exp(log_loss - reach), high=math.exp(log_loss + reach))

    def _slopes(self, numbers: np.ndarray, parameters: int, text_bytes: int) -> np.ndarray:
        """By how much the logarithm of the loss moves with each number of the law."""
        before = self._log_loss(numbers, parameters, text_bytes)
        moved = numbers + STEP * np.eye(len(numbers))
        return np.array([self._log_loss(row, parameters, text_bytes) - before for row in moved]) / STEP

    def _log_loss(self, numbers: np.ndarray, parameters: int, text_bytes: int) -> float:
        """`numbers` are those of LAW, and then those of each size BESIDE it; of a size that was not seen the last."""
        size, text = math.log2(parameters) - self._middle[0], math.log(text_bytes) - self._middle[1]
        index = self._sizes.index(parameters) if parameters in self._sizes else len(self._sizes)
        own = numbers[len(LAW) + len(BESIDE) * index :][: len(BESIDE)]
        if not len(own):
            own = np.zeros(len(BESIDE))
        least, first = math.exp(numbers[0] + numbers[1] * size + own[0]), math.exp(numbers[2] + own[1])
        steepness, halfway = numbers[3] + own[2], numbers[4] + numbers[5] * size + own[3]
        # Far out on either side the exponential would overflow.
        learnt = 1 / (1 + math.exp(min(700.0, max(-700.0, -steepness * (text - halfway)))))
        return math.log(max(first + (least - first) * learnt, 1e-9))
