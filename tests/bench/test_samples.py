"""From tokens to samples to batches."""

import itertools
from itertools import islice

import numpy as np
import pytest

from bench.corpus import BYTES, Corpus
from bench.samples import (
    IGNORED,
    LineRows,
    Masked,
    PackedRows,
    RawRows,
    Row,
    Samples,
    ShuffledBatches,
    causal,
    continuation,
)


def test_packed_samples_are_contiguous(corpus: Corpus) -> None:
    tokens = corpus.tokens(BYTES)
    samples = Samples(PackedRows(tokens, 16), causal)
    assert np.array_equal(samples[3]["input_ids"], tokens[48:64])
    assert len(samples) == len(tokens) // 16


def test_sequence_longer_than_the_text_is_refused() -> None:
    with pytest.raises(ValueError, match="fewer than one sequence of 9"):
        PackedRows(np.zeros(8, np.uint16), 9)


def test_masking_is_berts(corpus: Corpus) -> None:
    rows = PackedRows(corpus.tokens(BYTES), 100)
    samples = Samples(rows, Masked(BYTES))
    drawn = [samples[index] for index in range(100)]
    plain = [rows[index].ids for index in range(100)]
    assert {int((item["labels"] != -100).sum()) for item in drawn} == {15}
    predicted = np.concatenate([item["labels"] != -100 for item in drawn])
    shown = np.concatenate([item["input_ids"] for item in drawn])
    original = np.concatenate(plain)
    assert np.array_equal(shown[~predicted], original[~predicted])
    assert 0.75 < (shown[predicted] == BYTES.mask).mean() < 0.85
    assert 0.05 < (shown[predicted] == original[predicted]).mean() < 0.15
    assert np.array_equal(samples[7]["input_ids"], samples[7]["input_ids"])


def test_ranks_share_each_global_batch() -> None:
    whole = list(islice(ShuffledBatches(samples=20, batch=4, seed=1), 12))
    parts = [list(islice(ShuffledBatches(samples=20, batch=4, seed=1, rank=r, world_size=2), 12)) for r in (0, 1)]
    assert [left + right for left, right in zip(*parts, strict=True)] == whole
    assert sorted(itertools.chain(*whole[:5])) == list(range(20))
    assert whole[:5] != whole[5:10]


def test_batches_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ValueError, match="batch 5 does not divide over 2 ranks"):
        ShuffledBatches(samples=20, batch=5, seed=0, world_size=2)
    with pytest.raises(ValueError, match="fewer than one batch of 8"):
        ShuffledBatches(samples=7, batch=8, seed=0)


def test_lines_are_padded_and_never_predicted_where_padded(corpus: Corpus) -> None:
    tokens = corpus.tokens(BYTES)
    rows = LineRows(tokens, 32, ends=np.flatnonzero(tokens == ord("\n")), pad=BYTES.pad)
    lengths = rows.lengths()
    assert lengths.min() >= 2 and lengths.max() == 32
    for objective in (causal, Masked(BYTES)):
        index = int(lengths.argmin())
        sample = Samples(rows, objective)[index]
        assert sample["attention_mask"].tolist() == [1] * lengths[index] + [0] * (32 - lengths[index])
        assert (sample["labels"][lengths[index] :] == IGNORED).all()
        assert (sample["input_ids"][lengths[index] :] == BYTES.pad).all()


def test_raw_text_is_tokenized_to_the_same_ids(corpus: Corpus) -> None:
    raw = RawRows(corpus.text(), 16, encode=corpus.encoder(BYTES), bytes_per_token=1.0)
    assert raw[3].ids.tolist() == list(corpus.text()[48:64])


def test_the_second_half_continues_the_first() -> None:
    sample = continuation(Row(np.arange(10)), 0)
    assert sample["input_ids"].tolist() == [0, 1, 2, 3, 4]
    assert sample["labels"].tolist() == [5, 6, 7, 8, 9]
    padded = continuation(Row(np.arange(10), 7), 0)
    assert padded["labels"].tolist() == [5, 6, IGNORED, IGNORED, IGNORED]
