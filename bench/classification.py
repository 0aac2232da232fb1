"""Fine-tuning: a classifier learns the label of each row of a table, or which section of a corpus a text comes from.

Sections come from the corpus itself: in the default corpus the top-level module, such as `asyncio` or `json`, otherwise
the first folder or file name below the corpus.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import nn

from bench.corpus import Tokens
from bench.samples import LineRows, TextSource
from bench.workload import Workload

LABELS = 16
"""The most sections that are told apart: those with the most text."""

HELD_OUT = 10
"""Every 10th piece is kept from training, to be scored on."""


class Pieces:
    """Map-style dataset: `{"input_ids": int64 (sequence,), "labels": int64 ()}`."""

    def __init__(self, tokens: Tokens, sequence: int, starts: np.ndarray, labels: np.ndarray) -> None:
        self._tokens, self._sequence, self._starts, self._labels = tokens, sequence, starts, labels

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        start = int(self._starts[index])
        ids = self._tokens[start : start + self._sequence].astype(np.int64)
        return {"input_ids": ids, "labels": self._labels[index]}


class Labelled:
    """Map-style dataset of whole rows, each truncated or padded to one sequence: `{"input_ids": int64 (sequence,),
    "attention_mask": int64 (sequence,), "labels": int64 ()}`."""

    def __init__(self, rows: LineRows, indices: np.ndarray, labels: np.ndarray) -> None:
        self._rows, self._indices, self._labels = rows, indices, labels

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        row = self._rows[int(self._indices[index])]
        real = (np.arange(len(row.ids)) < (row.length or 0)).astype(np.int64)
        return {"input_ids": row.ids, "attention_mask": real, "labels": self._labels[index]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The names of the labels, and the data to train on and to score on."""

    labels: list[str]
    training: Pieces | Labelled
    held_out: Pieces | Labelled


@functools.cache
def split(text: TextSource) -> Split:
    """The rows of a table with their labels. In other text, each document is cut into pieces of one sequence; the
    remainder is dropped, and so are small sections.

    Raises ValueError if there are fewer than two labels or sections.
    """
    tokens = text.corpus.tokens(text.vocabulary)
    ends = np.flatnonzero(tokens == text.vocabulary.end)
    if text.corpus.label_column is not None:
        return _rows(text, tokens, ends)
    begins = np.concatenate([[0], ends[:-1] + 1])
    sections = text.corpus.sections()
    counts: Counter[str] = Counter()
    for section, pieces in zip(sections, (ends - begins) // text.sequence, strict=True):
        counts[section] += int(pieces)
    names = [name for name, count in counts.most_common(LABELS) if count >= HELD_OUT]
    if len(names) < 2:
        raise ValueError(
            f"corpus {text.corpus.path!r} has {len(names)} sections with {HELD_OUT} pieces of {text.sequence} tokens; "
            "fine-tuning tells sections apart: give a folder with two or more, or a shorter --sequence"
        )
    starts, labels = [], []
    for begin, end, section in zip(begins, ends, sections, strict=True):
        if section in names:
            own = np.arange(begin, end - text.sequence + 1, text.sequence)
            starts.append(own)
            labels.append(np.full(len(own), names.index(section), np.int64))
    where, what = np.concatenate(starts), np.concatenate(labels)
    made = [Pieces(tokens, text.sequence, where[chosen], what[chosen]) for chosen in _training_and_held_out(len(where))]
    return Split(labels=names, training=made[0], held_out=made[1])


def _rows(text: TextSource, tokens: Tokens, ends: np.ndarray) -> Split:
    sections = text.corpus.sections()
    names = sorted(set(sections))
    if len(names) < 2:
        raise ValueError(
            f"--label-column {text.corpus.label_column!r} has {len(names)} labels: fine-tuning needs two or more"
        )
    rows = LineRows(tokens, text.sequence, ends=ends, pad=text.vocabulary.pad)
    if len(rows) != len(sections):
        raise ValueError(f"data {text.corpus.path!r} has rows that are empty or contain the end token: leave them out")
    what = np.array([names.index(section) for section in sections], np.int64)
    indices = np.arange(len(rows))
    made = [Labelled(rows, indices[chosen], what[chosen]) for chosen in _training_and_held_out(len(rows))]
    return Split(labels=names, training=made[0], held_out=made[1])


def _training_and_held_out(count: int) -> tuple[np.ndarray, np.ndarray]:
    held_out = np.arange(count) % HELD_OUT == HELD_OUT - 1
    return ~held_out, held_out


def classification(workload: Workload, classifier: Callable[[int], nn.Module]) -> Workload:
    """The fine-tuning of a language model's workload. `classifier` makes the model for a given number of labels."""
    text = workload.text
    assert text is not None

    def model() -> nn.Module:
        return classifier(len(split(text).labels))

    return dataclasses.replace(
        workload, model=model, data=lambda: split(text).training, held_out=lambda: split(text).held_out
    )
