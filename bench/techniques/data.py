"""How samples are read, cut and put into batches."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from torch.utils.data import default_collate

from bench.host import gpu
from bench.registry import Change, Stage, technique
from bench.samples import LineRows, RawRows, Samples, TextSource, continuation
from bench.script.code import Code
from bench.setup import Order, TrainingSetup, Unsupported
from bench.spec import Phase
from bench.workload import Batch

LOADER_DOCS = "https://docs.pytorch.org/docs/stable/data.html"
PREFETCHED = 2
"""Batches that wait ready: one to be taken and one being made."""
PATIENCE_S = 5.0
"""For the batch that a thread is still making when nobody asks for more."""
POOL = 64
"""Batches whose samples are sorted by length together; between pools the order stays random."""


AHEAD = f"""\
def ahead(batches):
    \"""The same batches; a thread makes the next ones while the current one trains.\"""
    ready = queue.Queue({PREFETCHED})

    def fill():
        for batch in batches:
            ready.put(batch)

    threading.Thread(target=fill, daemon=True).start()
    while True:
        yield ready.get()"""


@technique(
    stage=Stage.DATA,
    values=(2, 4),
    slot="feed",
    source=LOADER_DOCS,
    code=Code(loader={"num_workers": "{value}"}, trainer={"dataloader_num_workers": "{value}"}),
)
def workers(setup: TrainingSetup, count: int) -> TrainingSetup:
    """{value} processes make the batches alongside the training process; in the baseline that process makes them."""
    return _loaded_by(setup, f"workers_{count}", num_workers=count)


def _loaded_by(setup: TrainingSetup, name: str, **options: int) -> TrainingSetup:
    if setup.workload.is_stream:
        raise Unsupported(f"{name} has several processes read the data, each of which would read the whole stream")
    return replace(setup, loader={**setup.loader, **options})


@technique(
    stage=Stage.DATA,
    slot="feed",
    source=LOADER_DOCS,
    code=Code(
        loader={"num_workers": 2, "prefetch_factor": 8},
        trainer={"dataloader_num_workers": 2, "dataloader_prefetch_factor": 8},
    ),
)
def workers_2_prefetch_8(setup: TrainingSetup) -> TrainingSetup:
    """Two processes make the batches, each up to eight ahead, so that a slow sample does not stop the training."""
    return _loaded_by(setup, "workers_2_prefetch_8", num_workers=2, prefetch_factor=8)


@technique(
    stage=Stage.DATA,
    slot="feed",
    source="https://docs.python.org/3/library/queue.html",
    code=Code(imports=("import queue", "import threading"), functions=(AHEAD,), feed="ahead"),
)
def prefetch_thread(setup: TrainingSetup) -> TrainingSetup:
    """A thread makes the next batches and moves them to the device while the current one trains."""
    return replace(setup, feed=_ahead)


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    ready: queue.Queue[Batch | BaseException] = queue.Queue(PREFETCHED)
    ended = threading.Event()

    def fill() -> None:
        try:
            for batch in batches:
                ready.put(batch)
                if ended.is_set():
                    return
        except BaseException as error:  # The training thread has to learn of any error.
            ready.put(error)

    filler = threading.Thread(target=fill, daemon=True)
    filler.start()
    try:
        while True:
            batch = ready.get()
            if isinstance(batch, BaseException):
                raise batch
            yield batch
    finally:
        # The thread draws from the process's generators, which seed whatever trains next.
        ended.set()
        with contextlib.suppress(queue.Empty):
            while True:
                ready.get_nowait()
        filler.join(PATIENCE_S)


@technique(
    stage=Stage.DATA,
    needs=[gpu()],
    source="https://docs.pytorch.org/tutorials/intermediate/pinmem_nonblock.html",
    code=Code(loader={"pin_memory": True}, trainer={"dataloader_pin_memory": True}),
)
def pinned_memory(setup: TrainingSetup) -> TrainingSetup:
    """Batches are made in page-locked memory and copied to the GPU while it still computes."""
    return replace(setup, loader={**setup.loader, "pin_memory": True})


def _text(setup: TrainingSetup, name: str) -> TextSource:
    """Where the workload's text comes from. Raises Unsupported where its samples are of another kind."""
    text = setup.workload.text
    if text is None or setup.workload.phase is Phase.FINETUNE:
        raise Unsupported(f"{name} cuts the corpus into its own samples; this workload brings ready-made samples")
    return text


@technique(
    stage=Stage.DATA,
    slot="samples",
    # With bytes as tokens the ids are the same; a BPE tokenizer sees other stretches of text than whole documents.
    changes={Change.DATA_ORDER},
    source="https://huggingface.co/docs/datasets/about_map_batch",
)
def tokenize_on_the_fly(setup: TrainingSetup) -> TrainingSetup:
    """Every sample's text is tokenized when it is asked for; the baseline tokenizes the corpus once, ahead of time."""
    text = _text(setup, "tokenize_on_the_fly")
    raw, tokens = text.corpus.text(), text.corpus.tokens(text.vocabulary)
    rows = RawRows(
        raw,
        text.sequence,
        encode=text.corpus.encoder(text.vocabulary),
        bytes_per_token=1.0 if text.vocabulary.is_bytes else len(raw) / len(tokens),
    )
    return _feeding(setup, Samples(rows, text.objective))


def _feeding(setup: TrainingSetup, samples: Samples) -> TrainingSetup:
    return replace(setup, workload=replace(setup.workload, data=lambda: samples))


def _lines(setup: TrainingSetup, name: str) -> LineRows:
    text = _text(setup, name)
    if text.objective is continuation:
        raise Unsupported(f"{name} pads the end of a line, which an encoder and decoder would split in the middle")
    tokens = text.corpus.tokens(text.vocabulary)
    ends = np.flatnonzero(np.isin(tokens, text.corpus.line_ends(text.vocabulary)))
    return LineRows(tokens, text.sequence, ends=ends, pad=text.vocabulary.pad)


@technique(
    stage=Stage.DATA,
    slot="samples",
    changes={Change.DATA_ORDER},
    source="https://arxiv.org/abs/2107.02027",
)
def pad_lines(setup: TrainingSetup) -> TrainingSetup:
    """Each sample is one line of text padded to the full sequence; the baseline packs the text without padding."""
    text, rows = _text(setup, "pad_lines"), _lines(setup, "pad_lines")
    return _feeding(setup, Samples(rows, text.objective))


@technique(
    stage=Stage.DATA,
    slot="samples",
    changes={Change.DATA_ORDER},
    source="https://arxiv.org/abs/2107.02027",
)
def bucket_lengths(setup: TrainingSetup) -> TrainingSetup:
    """Lines of similar length share a batch, which is padded only to its longest line; the baseline packs the text."""
    text, rows = _text(setup, "bucket_lengths"), _lines(setup, "bucket_lengths")
    lengths = rows.lengths()

    def order(samples: int, seed: int) -> Order:
        return _bucketed(lengths, setup, seed)

    made = _feeding(setup, Samples(rows, text.objective))
    return replace(made, order=order, loader={**setup.loader, "collate_fn": _trimmed})


def _bucketed(lengths: np.ndarray, setup: TrainingSetup, seed: int) -> Order:
    """This replica's share of each global batch. Within a pool of batches samples are sorted by length."""
    batch = setup.workload.batch
    mine = slice(setup.replica, None, setup.replicas)  # Every replica gets long and short samples alike.
    epoch = 0
    while True:
        random = np.random.default_rng((seed, epoch))
        order = random.permutation(len(lengths))
        for start in range(0, len(order) - batch + 1, batch * POOL):
            pool = order[start : start + batch * POOL]
            by_length = pool[np.argsort(lengths[pool], kind="stable")]
            whole = by_length[: len(pool) // batch * batch].reshape(-1, batch)
            for row in random.permutation(len(whole)):
                yield whole[row][mine].tolist()
        epoch += 1


def _trimmed(samples: list[Any]) -> Batch:
    """The batch without the columns that are padding in every sample; a multiple of 8 stays, as kernels like it."""
    batch = default_collate(samples)
    longest = int(batch["attention_mask"].sum(-1).max())
    kept = min(batch["attention_mask"].shape[1], -(-longest // 8) * 8)
    # Models flatten labels with view(), which needs contiguous memory.
    return {name: tensor[:, :kept].contiguous() for name, tensor in batch.items()}
