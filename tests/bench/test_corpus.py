"""Text to tokens."""

from pathlib import Path

import numpy as np
import pytest

from bench.corpus import BYTES, Corpus, bpe, open_corpus, read_documents


def test_default_corpus_is_the_standard_library() -> None:
    documents = read_documents(None)
    assert sum(len(document.text) for document in documents) > 5_000_000


def test_bytes_round_trip(corpus: Corpus, text_folder: Path) -> None:
    tokens = corpus.tokens(BYTES)
    first = read_documents(str(text_folder))[0].text
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


def test_sections_are_the_top_level_modules() -> None:
    sections = open_corpus(None).sections()
    assert len(sections) == len(read_documents(None))
    assert {"asyncio", "json", "argparse"} <= set(sections)


def test_the_text_is_all_documents(corpus: Corpus, text_folder: Path) -> None:
    assert corpus.text().tobytes() == b"".join(document.text for document in read_documents(str(text_folder)))
