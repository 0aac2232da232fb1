"""Text to tokens to batches."""

import itertools
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from bench.corpus import BYTES, Corpus, MaskedText, PackedText, ShuffledBatches, bpe, open_corpus, read_documents


def test_default_corpus_is_the_standard_library() -> None:
    documents = read_documents(None)
    assert sum(map(len, documents)) > 5_000_000


def test_bytes_round_trip(corpus: Corpus, text_folder: Path) -> None:
    tokens = corpus.tokens(BYTES)
    first = read_documents(str(text_folder))[0]
    assert bytes(tokens[: len(first)].astype(np.uint8)) == first
    assert tokens[len(first)] == BYTES.end


def test_bpe_is_trained_on_the_corpus_and_decodes_back(corpus: Corpus, text_folder: Path) -> None:
    vocabulary = bpe(400)
    tokens = corpus.tokens(vocabulary)
    assert tokens.max() < vocabulary.size
    assert len(tokens) < len(corpus.tokens(BYTES))
    assert int((tokens == vocabulary.end).sum()) == len(read_documents(str(text_folder)))


def test_hash_follows_the_text(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("one")
    before = open_corpus(str(file)).sha256
    file.write_text("two")
    assert open_corpus(str(file)).sha256 != before


@pytest.mark.parametrize("content", [None, b"", b"  \n", b"\0\1\2"])
def test_empty_corpus_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="text"):
        open_corpus(str(path))


def test_packed_samples_are_contiguous(corpus: Corpus) -> None:
    tokens = corpus.tokens(BYTES)
    samples = PackedText(tokens, 16)
    assert np.array_equal(samples[3]["input_ids"], tokens[48:64])
    assert len(samples) == len(tokens) // 16


def test_sequence_longer_than_the_text_is_refused() -> None:
    with pytest.raises(ValueError, match="fewer than one sequence of 9"):
        PackedText(np.zeros(8, np.uint16), 9)


def test_masking_is_berts(corpus: Corpus) -> None:
    samples = MaskedText(corpus.tokens(BYTES), 100, BYTES)
    drawn = [samples[index] for index in range(100)]
    plain = [PackedText(corpus.tokens(BYTES), 100)[index]["input_ids"] for index in range(100)]
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
