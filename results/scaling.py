"""How a model's loss falls with its size and the amount of text seen: a scaling law that is fitted to short trainings
on this machine and predicts longer ones.

A model starts from the statistics of letters, learns what goes together, and approaches the lowest loss that its size
allows. So its loss is a logistic curve over the logarithm of the text,

    loss = least + (first - least) / (1 + (text / halfway) ** steepness)

For much text this is the law of Hoffmann et al. 2022 (arXiv 2203.15556), least + constant * text ** -steepness. For
little text it levels off, where a power law would rise without limit. The sizes of a family share the law: the
logarithms of `least` and `halfway` are linear in the logarithm of the parameters. Each size may deviate a little,
because sizes differ in more than width. The priors come from trainings of small byte-level models. The most probable
law is found by least squares, and its uncertainty from the curvature there (Laplace).
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
    """The mean and standard deviation of a parameter's normal prior."""

    usual: float
    spread: float


LAW = (
    _Prior(math.log(0.95), 0.3),  # log of the least loss of the middle size, in nats per byte
    _Prior(-0.04, 0.03),  # and its change with each doubling of the parameters
    _Prior(math.log(3.1), 0.3),  # log of the first loss, that of bytes drawn given the letter before
    _Prior(0.6, 0.25),  # the steepness
    _Prior(0.0, 2.0),  # log of the text at which half is learnt, relative to the middle of the texts seen
    _Prior(-0.1, 0.2),  # and its change with each doubling of the parameters
)

BESIDE = (_Prior(0.0, 0.05), _Prior(0.0, 0.03), _Prior(0.0, 0.1), _Prior(0.0, 0.3))
"""How far a size may deviate from the law: in its least loss, first loss, steepness, and text at halfway."""

NOISE = 0.012
"""The noise of a log loss: trainings of two seeds differ by about this much. The fit may show more."""

STEP = 1e-5
"""The step for numerical derivatives with respect to the law's parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A complete training of a model of so many parameters on so much text. `loss` is in nats per byte, so that models
    with different tokenizers can be compared."""

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
    """The law that best fits the trainings seen."""

    def __init__(self, seen: Sequence[Seen]) -> None:
        """Raises ValueError unless some size has two trainings or more: otherwise it is unknown how its loss falls."""
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
        # If residuals exceed the noise between seeds, all uncertainties grow.
        own = float((found.fun[: len(seen)] ** 2).sum()) / self._freedom
        self._spread = max(1.0, math.sqrt(own))

    def expected(self, parameters: int, text_bytes: int) -> Expected:
        """The loss of a model after so much text; its size need not have been seen."""
        log_loss = self._log_loss(self._numbers, parameters, text_bytes)
        variance = NOISE**2
        if parameters in self._sizes:
            slopes = self._slopes(self._numbers, parameters, text_bytes)
            variance += float(slopes @ self._covariance @ slopes)
        else:
            # The fit does not include the deviation of a size that was not seen.
            numbers = np.concatenate([self._numbers, np.zeros(len(BESIDE))])
            slopes = self._slopes(numbers, parameters, text_bytes)
            known, own = slopes[: -len(BESIDE)], slopes[-len(BESIDE) :]
            spreads = np.array([item.spread for item in BESIDE])
            variance += float(known @ self._covariance @ known) + float(((own * spreads) ** 2).sum())
        reach = self._spread * math.sqrt(variance) * float(stats.t.ppf((1 + CONFIDENCE) / 2, self._freedom))
        return Expected(loss=math.exp(log_loss), low=math.exp(log_loss - reach), high=math.exp(log_loss + reach))

    def _slopes(self, numbers: np.ndarray, parameters: int, text_bytes: int) -> np.ndarray:
        """The derivatives of the log loss with respect to each parameter of the law."""
        before = self._log_loss(numbers, parameters, text_bytes)
        moved = numbers + STEP * np.eye(len(numbers))
        return np.array([self._log_loss(row, parameters, text_bytes) - before for row in moved]) / STEP

    def _log_loss(self, numbers: np.ndarray, parameters: int, text_bytes: int) -> float:
        """The log loss. `numbers` are the parameters in LAW, then those in BESIDE for each size seen; any beyond these
        are for a size that was not seen."""
        size, text = math.log2(parameters) - self._middle[0], math.log(text_bytes) - self._middle[1]
        index = self._sizes.index(parameters) if parameters in self._sizes else len(self._sizes)
        own = numbers[len(LAW) + len(BESIDE) * index :][: len(BESIDE)]
        if not len(own):
            own = np.zeros(len(BESIDE))
        least, first = math.exp(numbers[0] + numbers[1] * size + own[0]), math.exp(numbers[2] + own[1])
        steepness, halfway = numbers[3] + own[2], numbers[4] + numbers[5] * size + own[3]
        # The exponential would overflow far out on either side.
        learnt = 1 / (1 + math.exp(min(700.0, max(-700.0, -steepness * (text - halfway)))))
        return math.log(max(first + (least - first) * learnt, 1e-9))
