"""From text to tokens."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.corpus import BYTES, Corpus, bpe, open_corpus, read_documents
from tests import ROOT


def test_default_corpus_is_the_standard_library() -> None:
    documents = list(read_documents(None))
    assert sum(len(document.text) for document in documents) > 5_000_000


def test_bytes_round_trip(corpus: Corpus, text_folder: Path) -> None:
    tokens = corpus.tokens(BYTES)
    first = next(read_documents(str(text_folder))).text
    assert bytes(tokens[: len(first)].astype(np.uint8)) == first
    assert tokens[len(first)] == BYTES.end


def test_bpe_is_trained_on_the_corpus_and_decodes_back(corpus: Corpus, text_folder: Path) -> None:
    vocabulary = bpe(400)
    tokens = corpus.tokens(vocabulary)
    assert tokens.max() < vocabulary.size
    assert len(tokens) < len(corpus.tokens(BYTES))
    assert int((tokens == vocabulary.end).sum()) == len(list(read_documents(str(text_folder))))


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


def test_a_large_file_comes_in_pieces_and_is_the_same_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "text.txt"
    lines = b"".join(b"%d is a number\n" % number for number in range(9_000))
    file.write_bytes(b"\n" * 50_000 + lines + b"x" * 50_000)
    whole = open_corpus(str(file)).sha256
    monkeypatch.setattr("bench.corpus.LARGEST_DOCUMENT_BYTES", 20_000)
    pieces = list(read_documents(str(file)))
    assert len(pieces) > 10 and max(len(piece.text) for piece in pieces) <= 40_000
    corpus = open_corpus(str(file))
    assert (
        corpus.sha256
        == whole
        == hashlib.sha256(file.stat().st_size.to_bytes(8, "little") + file.read_bytes()).hexdigest()
    )
    assert corpus.text().tobytes() == file.read_bytes()


TOKENS = """
import resource, sys
from bench.corpus import BYTES, Part, open_corpus
corpus = open_corpus(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
counts = [len(corpus.tokens(BYTES)), *(len(corpus.of(part).tokens(BYTES)) for part in Part)]
print(*counts, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.long
def test_text_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    file, size = tmp_path / "text.txt", 100 << 20
    with file.open("wb") as opened:
        for number in range(100):
            opened.write((b"%d times\n" % number).ljust(64) * (1 << 14))
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", TOKENS, str(file)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    every, trained, held_out, grown_kib = map(int, done.stdout.split())
    assert every >= size and trained > held_out > 0
    assert 1024 * grown_kib < size


def test_sections_are_the_top_level_modules() -> None:
    sections = open_corpus(None).sections()
    assert len(sections) == len(list(read_documents(None)))
    assert {"asyncio", "json", "argparse"} <= set(sections)


def test_the_text_is_all_documents(corpus: Corpus, text_folder: Path) -> None:
    assert corpus.text().tobytes() == b"".join(document.text for document in read_documents(str(text_folder)))
