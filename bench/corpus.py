"""From real text to tokens.

The default corpus is the Python standard library's own source files, read from the running interpreter. Tokens are made
once, before anything is timed, and every arm memory-maps them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bench import tables

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTE_VOCABULARY = 260
"""256 bytes and the special tokens, rounded up to a multiple of 4."""

SPECIAL_TOKENS = ("<|end|>", "<|mask|>", "<|pad|>")

Tokens = np.ndarray[tuple[int], np.dtype[np.unsignedinteger]]
Text = np.ndarray[tuple[int], np.dtype[np.uint8]]
Encode = Callable[[bytes], Tokens]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """How text becomes token ids: bytes (`size` 260), byte-level BPE trained on the corpus itself (any other size), or
    a transformers tokenizer in a folder, whose files have this `digest`.

    The ids are those of the special tokens: end of document, mask and padding.
    """

    size: int
    end: int
    mask: int
    pad: int
    tokenizer: str | None = None
    digest: str = ""

    @property
    def is_bytes(self) -> bool:
        return self.size == BYTE_VOCABULARY and self.tokenizer is None

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        return np.uint16 if self.size <= 2**16 else np.uint32


BYTES = Vocabulary(size=BYTE_VOCABULARY, end=256, mask=257, pad=258)


def bpe(size: int) -> Vocabulary:
    """A byte-level BPE vocabulary of `size` ids; the special tokens come first."""
    return Vocabulary(size=size, end=0, mask=1, pad=2)


class Part(StrEnum):
    """The part of a corpus that is trained on, and the part that is held out to see what a model has learnt."""

    TRAINED = "trained"
    HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Text on disk, identified by the SHA-256 of its documents in their fixed order. A `path` of None is the standard
    library.

    In a table each row is a document, and `label_column` holds the classifier's labels. `part` restricts the corpus to
    one part; None is all of it.
    """

    path: str | None
    sha256: str
    text_column: str | None = None
    label_column: str | None = None
    part: Part | None = None

    def of(self, part: Part) -> Corpus:
        return dataclasses.replace(self, part=part)

    def as_message(self) -> dict[str, Any]:
        """The corpus as it is sent to an arm. An arm of an earlier revision does not know parts, so `part` is left out
        if None."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "part" or value is not None}

    @property
    def identity(self) -> str:
        """What identifies this text in file names."""
        return self.sha256[:16] + (f"-{Part(self.part).value}" if self.part else "")

    def tokens(self, vocabulary: Vocabulary) -> Tokens:
        """All token ids in one 1-D memory-mapped array. Encoded on first use, later found in the cache by hash."""
        target = cache_folder() / f"{self.identity}-{vocabulary.size}{vocabulary.digest}.npy"
        if not target.exists():
            encode = self.encoder(vocabulary)
            _keep(target, vocabulary.dtype, (encode(document.text) for document in self.documents()))
        return cast(Tokens, np.load(target, mmap_mode="r"))

    def documents(self) -> Iterator[Document]:
        """The documents one by one. Raises ValueError before the first if they no longer match the hash, or differ on
        this machine, as the standard library of another Python does."""
        if _sha256(self._read()) != self.sha256:
            raise ValueError(f"corpus {self.path or 'of the standard library'!r} is different here: give --data PATH")
        yield from _part(self._read, Part(self.part)) if self.part else self._read()

    def _read(self) -> Iterator[Document]:
        return read_documents(self.path, self.text_column, self.label_column)

    def text(self) -> Text:
        """The bytes of all documents in order, as a 1-D memory-mapped uint8 array."""
        target = cache_folder() / f"{self.identity}-text.npy"
        if not target.exists():
            _keep(target, np.uint8, (np.frombuffer(document.text, np.uint8) for document in self.documents()))
        return cast(Text, np.load(target, mmap_mode="r"))

    def sections(self) -> list[str]:
        """For each document, in order, its label, or else the first part of its path: in the default corpus the
        top-level module."""
        target = cache_folder() / f"{self.identity}-sections.json"
        if not target.exists():
            names = [document.section for document in self.documents()]
            write_atomically(target, lambda file: Path(file).write_text(json.dumps(names), encoding="utf-8"))
        return cast(list[str], json.loads(target.read_text(encoding="utf-8")))

    def line_ends(self, vocabulary: Vocabulary) -> list[int]:
        """The ids of the tokens that end a line."""
        if vocabulary.is_bytes:
            return [ord("\n"), vocabulary.end]
        known = (_own_tokenizer(vocabulary) or _bpe_tokenizer(self, vocabulary)).get_vocab()
        # Byte-level BPE writes a line feed as this letter, SentencePiece as its byte value.
        marks = ("Ċ", "\n", "<0x0A>")
        return [vocabulary.end, *(number for token, number in known.items() if any(mark in token for mark in marks))]

    def encoder(self, vocabulary: Vocabulary) -> Encode:
        """A function from one document's bytes to its token ids, ending with the end token. Trains and stores a
        tokenizer on first use."""
        if vocabulary.is_bytes:
            return _bytes_encoder(vocabulary)
        return _own_encoder(vocabulary) if vocabulary.tokenizer else _bpe_encoder(self, vocabulary)


def open_corpus(path: str | None, text_column: str | None = None, label_column: str | None = None) -> Corpus:
    """Read and hash the text at `path`. Raises ValueError if there is none."""
    sha256 = _sha256(read_documents(path, text_column, label_column))
    return Corpus(path=path, sha256=sha256, text_column=text_column, label_column=label_column)


HELD_OUT_EVERY = 20
"""One piece in this many is held out."""

LEAST_PIECES = 400
LARGEST_PIECE_BYTES = 1 << 16


def _part(read: Callable[[], Iterator[Document]], part: Part) -> Iterator[Document]:
    """The pieces of the documents that belong to that part. This depends on their text alone, so text that occurs twice
    is in the same part both times. Raises ValueError if nothing could be held out."""
    total = sum(len(document.text) for document in read())
    size = min(LARGEST_PIECE_BYTES, total // LEAST_PIECES)
    digests = sorted(_digest(piece) for document in read() for piece in _pieces(document, size))
    last = digests[(len(digests) - 1) // HELD_OUT_EVERY]
    if digests[-1] <= last:
        raise ValueError("the text repeats itself, so none of it can be held out: give more --data")
    held_out = part is Part.HELD_OUT
    pieces = (piece for document in read() for piece in _pieces(document, size))
    return (piece for piece in pieces if (_digest(piece) <= last) is held_out)


def _digest(document: Document) -> bytes:
    return hashlib.sha256(document.text).digest()


def _pieces(document: Document, size: int) -> Iterator[Document]:
    """A document in pieces of about `size` bytes, each up to the end of a line. A row of a table stays whole."""
    start, text = 0, document.text
    while start < len(text):
        end = text.find(b"\n", start + size) + 1 if not document.is_labelled else 0
        end = end or len(text)
        yield dataclasses.replace(document, text=text[start:end])
        start = end


def _sha256(documents: Iterable[Document]) -> str:
    """The hash of the sizes, texts and labels. It does not depend on whether a large file comes in pieces."""
    digest = hashlib.sha256()
    for document in documents:
        if document.file_bytes is not None:
            digest.update(document.file_bytes.to_bytes(8, "little"))
        digest.update(document.text + (document.section.encode() if document.is_labelled else b""))
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Document:
    """One text file, whose `section` is the first part of its path below the corpus, without a suffix; or one row of a
    table, whose section is its label. A large file comes in pieces, and only the first has the `file_bytes`."""

    section: str
    text: bytes
    file_bytes: int | None
    is_labelled: bool = False


LARGEST_DOCUMENT_BYTES = 1 << 23
"""Text is read in pieces of about this many bytes, each up to the end of a line: it may be larger than memory."""


def read_documents(
    path: str | None, text_column: str | None = None, label_column: str | None = None
) -> Iterator[Document]:
    """The text at `path`, a file or a folder (None: the standard library's `.py` files), in a fixed order; of a table
    (see bench.tables) its rows. Yielded one by one, because it may be larger than memory.

    Files with a NUL byte near the start count as binary and are left out. Raises ValueError if nothing is left.
    """
    if path is not None and tables.is_table(path):
        yield from _table(path, text_column, label_column)
        return
    if text_column or label_column:
        name, value = ("--text-column", text_column) if text_column else ("--label-column", label_column)
        raise ValueError(
            f"{name} {value!r} needs a table, but {path or 'the default text'!r} is not one: give --data a .jsonl, "
            ".csv or .parquet file, a folder saved by datasets, or a data set from the hub"
        )
    if path is None:
        root = Path(sysconfig.get_path("stdlib"))
        skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
        files = [file for file in sorted(root.rglob("*.py")) if not skipped & set(file.relative_to(root).parts)]
    else:
        root = Path(path)
        if not root.exists():
            raise ValueError(
                f"data {path!r} does not exist: give a text file or folder, a .jsonl, .csv or .parquet file, a folder "
                "saved by datasets, or OWNER/NAME from the Hugging Face hub"
            )
        files = [root] if root.is_file() else sorted(file for file in root.rglob("*") if file.is_file())
    folder = root if root.is_dir() else root.parent
    found = False
    for file in files:
        for document in _file(file, Path(file.relative_to(folder).parts[0]).stem):
            found = True
            yield document
    if not found:
        raise ValueError(f"data {path!r} holds no text: give a text file or a folder of text files")


def _file(file: Path, section: str) -> Iterator[Document]:
    """The file in pieces. Yields nothing if it is binary, or blank throughout."""
    with file.open("rb") as opened:
        size, most = os.fstat(opened.fileno()).st_size, LARGEST_DOCUMENT_BYTES
        held_back: list[Document] | None = []
        for index, text in enumerate(iter(lambda: opened.read(most) + opened.readline(most), b"")):
            if not index and b"\0" in text[:1024]:
                return
            document = Document(section, text, None if index else size)
            if held_back is None:
                yield document
                continue
            held_back.append(document)
            if text.strip():
                yield from held_back
                held_back = None


def _table(path: str, text_column: str | None, label_column: str | None) -> Iterator[Document]:
    found = False
    for text, label in tables.rows(path, text_column, label_column):
        encoded = text.encode("utf-8", "replace")
        found = True
        yield Document(label or "", encoded, len(encoded), is_labelled=label is not None)
    if not found:
        raise ValueError(f"data {path!r} has no row with text")


def cache_folder() -> Path:
    """Where tokens and tokenizers are cached: `$XDG_CACHE_HOME/trainpace` (`~/.cache/trainpace` by default), or if that
    is not writable, a temporary folder of this user."""
    with contextlib.suppress(OSError, RuntimeError):  # There may be no home at all.
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainpace"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.gettempdir()) / f"trainpace-{os.getuid()}"


def _bytes_encoder(vocabulary: Vocabulary) -> Encode:
    end = np.array([vocabulary.end], vocabulary.dtype)
    return lambda text: np.concatenate([np.frombuffer(text, np.uint8).astype(vocabulary.dtype), end])


def _own_encoder(vocabulary: Vocabulary) -> Encode:
    tokenizer = _own_tokenizer(vocabulary)

    def encode(text: bytes) -> Tokens:
        ids = tokenizer(text.decode("utf-8", "replace"), add_special_tokens=False, verbose=False).input_ids
        return np.array([*ids, vocabulary.end], vocabulary.dtype)

    return encode


def _own_tokenizer(vocabulary: Vocabulary) -> Any:
    """The tokenizer in a model's folder; None if the vocabulary does not come from one."""
    if vocabulary.tokenizer is None:
        return None
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(vocabulary.tokenizer, local_files_only=True, trust_remote_code=False)


def _bpe_encoder(corpus: Corpus, vocabulary: Vocabulary) -> Encode:
    tokenizer = _bpe_tokenizer(corpus, vocabulary)

    def encode(text: bytes) -> Tokens:
        return np.array([*tokenizer.encode(text.decode("utf-8", "replace")).ids, vocabulary.end], vocabulary.dtype)

    return encode


def _bpe_tokenizer(corpus: Corpus, vocabulary: Vocabulary) -> Tokenizer:
    """The tokenizer, trained on the corpus on first use, later found in the cache."""
    from tokenizers import ByteLevelBPETokenizer, Tokenizer

    if corpus.part:
        # The tokenizer sees no more of the held-out part than the model does.
        corpus = corpus.of(Part.TRAINED)
    target = cache_folder() / f"{corpus.identity}-{vocabulary.size}.tokenizer.json"
    if not target.exists():
        trained = ByteLevelBPETokenizer()
        texts = (document.text.decode("utf-8", "replace") for document in corpus.documents())
        trained.train_from_iterator(
            texts,
            vocab_size=vocabulary.size,
            show_progress=False,
            special_tokens=list(SPECIAL_TOKENS),
        )
        write_atomically(target, lambda file: Path(file).write_text(trained.to_str(), encoding="utf-8"))
    return Tokenizer.from_file(str(target))


def tokenizer_of(corpus: Corpus, vocabulary: Vocabulary) -> Any:
    """The vocabulary as a transformers tokenizer, which gives the same ids as the corpus."""
    own = _own_tokenizer(vocabulary)
    if own is not None:
        return own
    from transformers import PreTrainedTokenizerFast

    made = _bytes_tokenizer(vocabulary) if vocabulary.is_bytes else _bpe_tokenizer(corpus, vocabulary)
    end, mask, pad = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=end, eos_token=end, mask_token=mask, pad_token=pad)


def _bytes_tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """A tokenizer whose ids are the byte values. It is byte-level BPE without merges, with BPE's letters for bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = {letter: byte for byte, letter in bytes_to_unicode().items()}
    special = dict(zip(SPECIAL_TOKENS, (vocabulary.end, vocabulary.mask, vocabulary.pad), strict=True))
    made = Tokenizer(models.BPE(vocab=letters | special, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(SPECIAL_TOKENS))
    return made


def _keep(target: Path, dtype: type[np.unsignedinteger], arrays: Iterable[np.ndarray]) -> None:
    """Write the arrays one after the other into one array on disk, without holding them all in memory."""

    def fill(name: str) -> None:
        with tempfile.TemporaryFile(dir=target.parent) as joined, Path(name).open("wb") as file:
            for array in arrays:
                joined.write(array.astype(dtype, copy=False).tobytes())
            shape = (joined.tell() // np.dtype(dtype).itemsize,)
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            joined.seek(0)
            shutil.copyfileobj(joined, file)

    write_atomically(target, fill)


def write_atomically(target: Path, write: Callable[[str], object]) -> None:
    """Let `write` fill a temporary file, then rename it into place: no reader sees half of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=target.suffix)
    os.close(handle)
    try:
        write(name)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
