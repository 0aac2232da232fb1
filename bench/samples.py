"""From tokens to samples to batches.

Rows cut the corpus into pieces of one length. An objective makes each row a sample, with what is to be predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bench.corpus import Corpus, Encode, Text, Tokens, Vocabulary

Sample = dict[str, np.ndarray]
IGNORED = -100
"""The label of a position that is not predicted; the default `ignore_index` of torch's cross entropy."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of tokens. `ids`: int64, shape (sequence,). Positions from `length` on are padding; None: there is none."""

    ids: np.ndarray
    length: int | None = None


class Rows(Protocol):
    """Pieces of the corpus, by index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Row: ...


Objective = Callable[[Row, int], Sample]
"""From a row and its index to the sample that the model is called with."""


class PackedRows:
    """Row i is the i-th run of `sequence` tokens in the whole corpus: no padding, documents run into each other."""

    def __init__(self, tokens: Tokens, sequence: int) -> None:
        if len(tokens) < sequence:
            raise ValueError(f"the corpus holds {len(tokens)} tokens, fewer than one sequence of {sequence}: add text")
        self._tokens, self._sequence = tokens, sequence

    def __len__(self) -> int:
        return len(self._tokens) // self._sequence

    def __getitem__(self, index: int) -> Row:
        start = index * self._sequence
        return Row(self._tokens[start : start + self._sequence].astype(np.int64))


class LineRows:
    """Row i is the i-th line of text, or document, that is not empty, truncated or padded to `sequence` tokens."""

    def __init__(self, tokens: Tokens, sequence: int, *, ends: np.ndarray, pad: int) -> None:
        """`ends` are the positions of the last token of each line, in order."""
        starts = np.concatenate([[0], ends[:-1] + 1])
        kept = ends - starts >= 1
        self._starts, self._ends = starts[kept], ends[kept] + 1
        self._tokens, self._sequence, self._pad = tokens, sequence, pad

    def __len__(self) -> int:
        return len(self._starts)

    def lengths(self) -> np.ndarray:
        """The tokens of each row that are not padding, int64, shape (rows,)."""
        real: np.ndarray = np.minimum(self._ends - self._starts, self._sequence)
        return real

    def __getitem__(self, index: int) -> Row:
        start = int(self._starts[index])
        real = self._tokens[start : min(int(self._ends[index]), start + self._sequence)]
        ids = np.full(self._sequence, self._pad, np.int64)
        ids[: len(real)] = real
        return Row(ids, len(real))


class RawRows:
    """Row i is made from the i-th stretch of raw text, which is tokenized on access."""

    def __init__(self, text: Text, sequence: int, *, encode: Encode, bytes_per_token: float) -> None:
        """A stretch is long enough for `sequence` tokens and half as many again; surplus tokens are dropped."""
        self._text, self._sequence, self._encode = text, sequence, encode
        self._stretch = sequence if bytes_per_token <= 1 else int(1.5 * sequence * bytes_per_token)

    def __len__(self) -> int:
        return len(self._text) // self._stretch

    def __getitem__(self, index: int) -> Row:
        start = index * self._stretch
        ids = self._encode(self._text[start : start + self._stretch].tobytes())[: self._sequence].astype(np.int64)
        padded = np.resize(ids, self._sequence)  # If a stretch of very long words is too short, it is repeated.
        return Row(padded)


def causal(row: Row, index: int) -> Sample:
    """Predict every token from those before it: `labels` are the ids, which the model shifts."""
    return _with_mask(row, {"input_ids": row.ids, "labels": row.ids})


def next_token(row: Row, index: int) -> Sample:
    """For a model that does not shift its labels: every token but the last, and the token that follows it."""
    return {"input_ids": row.ids[:-1], "labels": row.ids[1:]}


@dataclass(frozen=True, slots=True)
class Masked:
    """Masked language modelling as in BERT (Devlin et al. 2018, arXiv:1810.04805, 3.1).

    15 % of each sample's positions are predicted: of these 80 % show the mask, 10 % a random token, and 10 % the
    original one. Each sample has exactly `round(0.15 * sequence)` of them, as in the published code, so that the mean
    loss over equal micro-batches is the mean loss over the batch. The mask of a sample depends only on the seed and its
    index.
    """

    vocabulary: Vocabulary
    seed: int = 0

    def __call__(self, row: Row, index: int) -> Sample:
        ids, length = row.ids.copy(), row.length or len(row.ids)
        random = np.random.default_rng((self.seed, index))
        predicted = max(1, round(0.15 * length))
        chosen = random.permutation(length)[:predicted]
        labels = np.full_like(ids, IGNORED)
        labels[chosen] = ids[chosen]
        fate = random.random(predicted)
        ids[chosen[fate < 0.8]] = self.vocabulary.mask
        swapped = chosen[fate >= 0.9]
        ids[swapped] = random.integers(0, self.vocabulary.size, len(swapped))
        return _with_mask(row, {"input_ids": ids, "labels": labels})


def continuation(row: Row, index: int) -> Sample:
    """For an encoder with a decoder: predict the second half of a row from the first.

    This is the prefix objective of Raffel et al. 2019 (arXiv:1910.10683, 3.3.1). It needs no sentinel tokens, which a
    vocabulary of bytes does not have.
    """
    middle = len(row.ids) // 2
    sample = {"input_ids": row.ids[:middle], "labels": row.ids[middle:].copy()}
    if row.length is not None:
        sample["attention_mask"] = (np.arange(middle) < row.length).astype(np.int64)
        sample["labels"][max(0, row.length - middle) :] = IGNORED
    return sample


def _with_mask(row: Row, sample: Sample) -> Sample:
    """If the row has padding, tell the model, and predict none of it."""
    if row.length is None:
        return sample
    real = np.arange(len(row.ids)) < row.length
    labels = np.where(real, sample["labels"], IGNORED)
    return sample | {"labels": labels, "attention_mask": real.astype(np.int64)}


class Samples:
    """Map-style dataset: the objective's sample of each row."""

    def __init__(self, rows: Rows, objective: Objective) -> None:
        self.rows, self._objective = rows, objective

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return self._objective(self.rows[index], index)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSource:
    """Where a workload's samples come from. Techniques that feed text in another way cut it into other rows."""

    corpus: Corpus
    vocabulary: Vocabulary
    sequence: int
    objective: Objective

    def packed(self) -> Samples:
        """Runs of tokens without padding: what a workload trains on unless a technique says otherwise."""
        return Samples(PackedRows(self.corpus.tokens(self.vocabulary), self.sequence), self.objective)


class ShuffledBatches:
    """Endless index lists for a DataLoader's `batch_sampler`: one rank's equal share of each global batch.

    The order depends only on the seed, so any split into ranks or micro-batches trains on the same samples in the same
    updates. The incomplete last batch of an epoch is dropped.
    """

    def __init__(self, *, samples: int, batch: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if batch % world_size:
            raise ValueError(f"batch {batch} does not divide over {world_size} ranks: give a multiple of {world_size}")
        if samples < batch:
            raise ValueError(f"the data holds {samples} samples, fewer than one batch of {batch}: lower the batch")
        self._samples, self._batch, self._seed = samples, batch, seed
        share = batch // world_size
        self._share = slice(rank * share, (rank + 1) * share)

    def __iter__(self) -> Iterator[list[int]]:
        epoch = 0
        while True:
            order = np.random.default_rng((self._seed, epoch)).permutation(self._samples)
            for start in range(0, self._samples - self._batch + 1, self._batch):
                yield order[start : start + self._batch][self._share].tolist()
            epoch += 1
