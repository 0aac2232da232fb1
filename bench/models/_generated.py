"""Samples for models that read no text. They are generated on access, the same ones every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.samples import Sample

SAMPLES = 50_000


@dataclass(frozen=True, slots=True)
class Generated:
    """Map-style dataset: `make` draws sample i from a generator seeded with i."""

    make: Callable[[np.random.Generator, int], Sample]

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Sample:
        return self.make(np.random.default_rng(index), index)


@dataclass(frozen=True, slots=True)
class Images:
    """`{"pixel_values": float32 (3, side, side), "labels": int64 ()}`: noise over the pattern of a class, a wave with
    its own direction and length."""

    side: int
    classes: int

    def __call__(self, random: np.random.Generator, index: int) -> Sample:
        label = index % self.classes
        across = np.linspace(0, 2 * np.pi, self.side, dtype=np.float32)
        angle, waves = np.float32(np.pi * label / self.classes), np.float32(1 + label % 5)
        pattern = np.sin(waves * (np.cos(angle) * across[:, None] + np.sin(angle) * across[None, :]))
        pixels = pattern[None] + random.standard_normal((3, self.side, self.side), np.float32)
        return {"pixel_values": pixels, "labels": np.int64(label)}


@dataclass(frozen=True, slots=True)
class Speech:
    """`{"input_features": float32 (bins, frames), "labels": int64 (tokens,)}`: each token is a tone in noise that lasts
    for its share of the frames, as in a log-mel spectrogram."""

    bins: int
    frames: int
    tokens: int
    vocabulary: int

    def __call__(self, random: np.random.Generator, index: int) -> Sample:
        # Some tokens are said far more often than others, and the first four are the special ones.
        spoken = 4 + np.minimum(random.zipf(1.5, self.tokens) - 1, self.vocabulary - 5)
        heard = np.repeat(spoken % self.bins, -(-self.frames // self.tokens))[: self.frames]
        tones = np.exp(-((np.arange(self.bins)[:, None] - heard[None]) ** 2) / 8).astype(np.float32)
        noise = 0.1 * random.standard_normal(tones.shape, np.float32)
        return {"input_features": tones + noise, "labels": spoken}
