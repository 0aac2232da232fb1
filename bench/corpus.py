"""Real text to tokens to batches.

The default corpus is the Python standard library's own source files, read from the running interpreter. Tokens are
made once, before anything is timed, and memory-mapped by every arm.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

BYTE_VOCABULARY = 260
"""256 bytes and the special tokens; rounded up to a multiple of 4."""

Tokens = np.ndarray[tuple[int], np.dtype[np.unsignedinteger]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """How text becomes token ids: bytes (`size` 260) or byte-level BPE trained on the corpus itself (any other size).

    The ids are the special tokens: end of document, mask and padding.
    """

    size: int
    end: int
    mask: int
    pad: int

    @property
    def is_bytes(self) -> bool:
        return self.size == BYTE_VOCABULARY

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        return np.uint16 if self.size <= 2**16 else np.uint32


BYTES = Vocabulary(size=BYTE_VOCABULARY, end=256, mask=257, pad=258)


def bpe(size: int) -> Vocabulary:
    """A byte-level BPE vocabulary of `size` ids; the special tokens come first."""
    return Vocabulary(size=size, end=0, mask=1, pad=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Text on disk, known by the SHA-256 over its documents in their fixed order. `path` None: the standard library."""

    path: str | None
    sha256: str

    def tokens(self, vocabulary: Vocabulary) -> Tokens:
        """All token ids in one 1-D memory-mapped array. Encoded on first use, then found by hash in the cache."""
        target = cache_folder() / f"{self.sha256[:16]}-{vocabulary.size}.npy"
        if not target.exists():
            documents = read_documents(self.path)
            encode = _bytes_encoder(vocabulary) if vocabulary.is_bytes else _bpe_encoder(self, documents, vocabulary)
            tokens = np.concatenate([encode(text) for text in documents])
            _write_atomically(target, lambda name: np.save(name, tokens))
        return cast(Tokens, np.load(target, mmap_mode="r"))


def open_corpus(path: str | None) -> Corpus:
    """Read and hash the text at `path`. Raises ValueError if there is none."""
    digest = hashlib.sha256()
    for text in read_documents(path):
        digest.update(len(text).to_bytes(8, "little") + text)
    return Corpus(path=path, sha256=digest.hexdigest())


def read_documents(path: str | None) -> list[bytes]:
    """The text files at `path`, a file or a folder (None: the standard library's `.py` files), in a fixed order.

    Files with a NUL byte near the start are taken for binary and left out. Raises ValueError if nothing is left.
    """
    if path is None:
        root = Path(sysconfig.get_path("stdlib"))
        skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
        files = [file for file in sorted(root.rglob("*.py")) if not skipped & set(file.relative_to(root).parts)]
    else:
        root = Path(path)
        if not root.exists():
            raise ValueError(f"corpus {path!r} does not exist: give a text file or a folder of text files")
        files = [root] if root.is_file() else sorted(file for file in root.rglob("*") if file.is_file())
    texts = (file.read_bytes() for file in files)
    documents = [text for text in texts if text.strip() and b"\0" not in text[:1024]]
    if not documents:
        raise ValueError(f"corpus {path!r} holds no text: give a text file or a folder of text files")
    return documents


def cache_folder() -> Path:
    """Where tokens and tokenizers are kept between runs: `$XDG_CACHE_HOME/trainpace`."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "trainpace"


def _bytes_encoder(vocabulary: Vocabulary) -> Callable[[bytes], Tokens]:
    end = np.array([vocabulary.end], vocabulary.dtype)
    return lambda text: np.concatenate([np.frombuffer(text, np.uint8).astype(vocabulary.dtype), end])


def _bpe_encoder(corpus: Corpus, documents: list[bytes], vocabulary: Vocabulary) -> Callable[[bytes], Tokens]:
    from tokenizers import ByteLevelBPETokenizer, Tokenizer

    target = cache_folder() / f"{corpus.sha256[:16]}-{vocabulary.size}.tokenizer.json"
    if not target.exists():
        trained = ByteLevelBPETokenizer()
        texts = (text.decode("utf-8", "replace") for text in documents)
        trained.train_from_iterator(
            texts,
            vocab_size=vocabulary.size,
            show_progress=False,
            special_tokens=["<|end|>", "<|mask|>", "<|pad|>"],
        )
        _write_atomically(target, lambda file: Path(file).write_text(trained.to_str()))
    tokenizer = Tokenizer.from_file(str(target))

    def encode(text: bytes) -> Tokens:
        return np.array([*tokenizer.encode(text.decode("utf-8", "replace")).ids, vocabulary.end], vocabulary.dtype)

    return encode


def _write_atomically(target: Path, write: Callable[[str], object]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=target.suffix)
    os.close(handle)
    write(name)
    os.replace(name, target)


class PackedText:
    """Map-style dataset for causal language models: sample i is the i-th run of `sequence` tokens.

    Each sample is `{"input_ids", "labels"}`, int64 arrays of shape (sequence,), alike: the model shifts the labels.
    """

    def __init__(self, tokens: Tokens, sequence: int) -> None:
        if len(tokens) < sequence:
            raise ValueError(f"the corpus holds {len(tokens)} tokens, fewer than one sequence of {sequence}: add text")
        self._tokens, self._sequence = tokens, sequence

    def __len__(self) -> int:
        return len(self._tokens) // self._sequence

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        start = index * self._sequence
        ids = self._tokens[start : start + self._sequence].astype(np.int64)
        return {"input_ids": ids, "labels": ids}


class MaskedText(PackedText):
    """Map-style dataset for masked language models, masked as BERT was (Devlin et al. 2018, arXiv:1810.04805, 3.1).

    15 % of each sample's positions are predicted: of these 80 % show the mask, 10 % a random token, 10 % themselves.
    Exactly `round(0.15 * sequence)` positions a sample, as in the published code, so that the mean loss over equal
    micro-batches is the mean loss over the batch. `labels` is -100 where nothing is predicted. The mask of a sample
    depends on the seed and its index alone.
    """

    def __init__(self, tokens: Tokens, sequence: int, vocabulary: Vocabulary, seed: int = 0) -> None:
        super().__init__(tokens, sequence)
        self._vocabulary, self._seed = vocabulary, seed
        self._predicted = max(1, round(0.15 * sequence))

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        ids = super().__getitem__(index)["input_ids"]
        random = np.random.default_rng((self._seed, index))
        chosen = random.permutation(self._sequence)[: self._predicted]
        labels = np.full_like(ids, -100)
        labels[chosen] = ids[chosen]
        fate = random.random(self._predicted)
        ids[chosen[fate < 0.8]] = self._vocabulary.mask
        swapped = chosen[fate >= 0.9]
        ids[swapped] = random.integers(0, self._vocabulary.size, len(swapped))
        return {"input_ids": ids, "labels": labels}


class ShuffledBatches:
    """Endless index lists for a DataLoader's `batch_sampler`: one rank's equal share of each global batch.

    The order depends on the seed alone, so any split into ranks or micro-batches trains on the same samples
    in the same updates. An epoch's incomplete last batch is dropped.
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
