"""How samples are read and combined into batches, and batches of another size."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch

from bench.corpus import BYTES, Corpus
from bench.setup import TrainingSetup, Unsupported, baseline
from bench.techniques import data
from bench.workload import Workload
from harness.evidence.load import Load, load
from harness.timing import largest
from harness.timing.feed import Batches
from harness.timing.largest import largest_batch
from harness.timing.trainer import Trainer
from tests.training import apply, build, own


def drawn(setup: TrainingSetup, count: int) -> list[dict[str, torch.Tensor]]:
    return list(islice(Batches(setup, seed=0), count))


@pytest.mark.parametrize("name", ["workers_2", "workers_4", "workers_2_prefetch_8", "prefetch_thread"])
def test_however_batches_are_made_they_are_the_baselines(corpus: Corpus, name: str) -> None:
    plain = drawn(build(corpus, "gpt2/nano"), 5)
    for made, expected in zip(drawn(build(corpus, "gpt2/nano", name), 5), plain, strict=True):
        assert torch.equal(made["input_ids"], expected["input_ids"])


def test_workers_are_processes(corpus: Corpus) -> None:
    before = set(torch.multiprocessing.active_children())
    batches = Batches(build(corpus, "gpt2/nano", "workers_2"), seed=0)
    next(batches)
    assert len(set(torch.multiprocessing.active_children()) - before) == 2
    del batches
    assert not set(torch.multiprocessing.active_children()) - before


def test_a_failure_of_the_prefetching_thread_reaches_the_training(corpus: Corpus) -> None:
    setup = build(corpus, "gpt2/nano", "prefetch_thread")

    def broken() -> Iterator[torch.Tensor]:
        yield torch.zeros(1)
        raise ValueError("the data is gone")

    fed = iter(setup.feed(broken()))
    assert torch.equal(next(fed), torch.zeros(1))
    with pytest.raises(ValueError, match="the data is gone"):
        next(fed)


def test_text_is_tokenized_when_it_is_asked_for(corpus: Corpus) -> None:
    setup = build(corpus, "gpt2/nano", "tokenize_on_the_fly")
    text = corpus.text()
    first = setup.workload.data()[1]["input_ids"]
    assert bytes(first.astype("uint8")) == text[32:64].tobytes()


def test_padding_is_fed_but_not_counted(corpus: Corpus) -> None:
    batches = drawn(build(corpus, "gpt2/nano", "pad_lines"), 8)
    real = [int((batch["input_ids"] != BYTES.pad).sum()) for batch in batches]
    assert all(batch["input_ids"].shape == (8, 32) for batch in batches)
    assert [load(batch, 8, 32) for batch in batches] == [Load(samples=8, tokens=count) for count in real]
    assert sum(real) < 8 * 8 * 32


def real_share(batches: list[dict[str, torch.Tensor]]) -> float:
    masks = [batch["attention_mask"] for batch in batches]
    return sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def test_buckets_hold_lines_of_like_length_and_little_padding(corpus: Corpus) -> None:
    padded, bucketed = (drawn(build(corpus, "gpt2/nano", name), 40) for name in ("pad_lines", "bucket_lengths"))
    shares = [
        sum(int(batch["attention_mask"].sum()) for batch in batches)
        / sum(batch["input_ids"].numel() for batch in batches)
        for batches in (padded, bucketed)
    ]
    assert shares[1] > shares[0]
    assert {batch["input_ids"].shape[1] % 8 for batch in bucketed} == {0}


def test_replicas_share_each_bucket(corpus: Corpus) -> None:
    whole = build(corpus, "gpt2/nano", "bucket_lengths")
    assert whole.order is not None
    first, second = (
        apply(replace(build(corpus, "gpt2/nano"), replica=index, replicas=2), "bucket_lengths") for index in (0, 1)
    )
    assert first.order is not None and second.order is not None
    for both, one, other in islice(zip(whole.order(0, 1), first.order(0, 1), second.order(0, 1), strict=False), 5):
        assert sorted(both) == sorted(one + other)


@pytest.mark.parametrize("name", ["tokenize_on_the_fly", "pad_lines", "bucket_lengths"])
def test_a_workload_that_brings_its_own_samples_keeps_them(name: str) -> None:
    with pytest.raises(Unsupported, match=name):
        apply(own(lambda: torch.nn.Linear(2, 2)), name)


def test_the_ramp_grows_to_the_whole_batch_and_loses_no_sample(corpus: Corpus) -> None:
    setup = build(corpus, "gpt2/nano", "batch_ramp")
    sizes = [len(batch["input_ids"]) for batch in drawn(setup, 20)]
    assert sizes == [2] * 8 + [4] * 8 + [8] * 4
    plain = torch.cat([batch["input_ids"] for batch in drawn(build(corpus, "gpt2/nano"), 6)])
    ramped = torch.cat([batch["input_ids"] for batch in drawn(setup, 16)])
    assert torch.equal(plain, ramped)


def test_the_largest_batch_is_bounded_by_memory_and_by_the_samples(corpus: Corpus, one_thread: None) -> None:
    samples = len(build(corpus, "gpt2/nano").workload.data())
    tried = []

    def sized(batch: int) -> TrainingSetup:
        tried.append(batch)
        if batch > 64:
            raise torch.OutOfMemoryError
        return resized(build(corpus, "gpt2/nano"), batch)

    assert largest_batch(sized, 8, seed=0) == min(64, 2 ** int(math.log2(samples)))
    assert tried[:2] == [8, 16]
    few = build(corpus, "gpt2/nano")
    samples_of_few = [few.workload.data()[index] for index in range(30)]
    few = replace(few, workload=replace(few.workload, data=lambda: samples_of_few))
    assert largest_batch(lambda batch: resized(few, batch), 8, seed=0) == 16


def test_the_largest_batch_is_tried_second_where_memory_is_foretold(
    corpus: Corpus, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(largest, "LONGEST_STEP_S", math.inf)
    lacking, tried = 1 << 60, []

    def sized(batch: int) -> TrainingSetup:
        tried.append(batch)
        if batch > 64:
            raise torch.OutOfMemoryError
        return resized(build(corpus, "gpt2/nano"), batch)

    foretold = {16: 1000, 32: 2000, 64: 4000, 128: lacking, 256: lacking}
    assert largest_batch(sized, 8, seed=0, foretold=foretold) == 64
    assert tried == [8, 64]
    # The prediction promised too much, so the batch is doubled step by step.
    tried.clear()
    assert largest_batch(sized, 8, seed=0, foretold=foretold | {128: 8000}) == 64
    assert tried == [8, 128, 16, 32, 64, 128]


def resized(setup: TrainingSetup, batch: int) -> TrainingSetup:
    return replace(setup, workload=replace(setup.workload, batch=batch))


def test_weak_scaling_gives_every_rank_a_whole_batch(corpus: Corpus) -> None:
    two = apply(replace(build(corpus, "gpt2/nano"), replicas=2), "batch_per_rank")
    assert (two.workload.batch, two.share) == (16, 8)
    with pytest.raises(Unsupported, match="several"):
        build(corpus, "gpt2/nano", "batch_per_rank")


class Gate:
    """Holds the first thread for many times as long as it took to arrive, and reports the least time held."""

    def __init__(self) -> None:
        self.held_s = 0.0
        self._came, self._open = threading.Event(), threading.Event()
        self._began_s = time.perf_counter()
        threading.Thread(target=self._keep, daemon=True).start()

    def _keep(self) -> None:
        self._came.wait()
        came_s = time.perf_counter()
        while self.held_s < 10 * (came_s - self._began_s):
            self.held_s = time.perf_counter() - came_s
        self._open.set()

    def wait(self) -> None:
        self._came.set()
        self._open.wait()


class Items:
    """Samples that wait at a gate, if there is one, when they are read."""

    def __init__(self, gate: Gate | None = None) -> None:
        self._gate = gate

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        if self._gate is not None:
            self._gate.wait()
        return torch.ones(2)


class Copied(torch.Tensor):
    """A batch that waits at a gate when it is copied to the device."""

    gate: Gate

    def to(self, *args: Any, **kwargs: Any) -> Any:
        self.gate.wait()
        return super().to(*args, **kwargs)


def held_setup(items: Items, gate: Gate | None, *names: str) -> TrainingSetup:
    def collate(samples: list[torch.Tensor]) -> torch.Tensor:
        if gate is None:
            return torch.stack(samples)
        batch = torch.stack(samples).as_subclass(Copied)
        batch.gate = gate
        return batch

    workload = Workload(model=lambda: torch.nn.Linear(2, 2), data=lambda: items, batch=2)
    setup = apply(baseline(workload, torch.device("cpu")), *names)
    return replace(setup, loader={**setup.loader, "collate_fn": collate})


def taken(setup: TrainingSetup) -> tuple[float, float, float]:
    """The wait for and the copy of the first batch, and the duration of the call that includes both."""
    batches = Batches(setup, seed=0)
    begun_s = time.perf_counter()
    _, taking = batches.next_timed()
    return taking.wait_s, taking.copy_s, time.perf_counter() - begun_s


def test_a_slow_sample_is_waited_for_and_not_copied() -> None:
    gate = Gate()
    wait_s, copy_s, whole_s = taken(held_setup(Items(gate), None))
    assert wait_s >= gate.held_s > 0
    assert 0 < copy_s <= whole_s - gate.held_s


def test_a_slow_copy_is_no_wait_for_data() -> None:
    gate = Gate()
    wait_s, copy_s, whole_s = taken(held_setup(Items(), gate))
    assert copy_s >= gate.held_s > 0
    assert 0 < wait_s <= whole_s - gate.held_s


def test_a_copy_in_another_thread_is_a_wait_for_its_queue() -> None:
    gate = Gate()
    wait_s, copy_s, _ = taken(held_setup(Items(), gate, "prefetch_thread"))
    assert wait_s >= gate.held_s > 0
    assert copy_s == 0


def test_every_step_tells_its_wait_and_its_copy(corpus: Corpus) -> None:
    told = Trainer(build(corpus, "gpt2/nano"), seed=0).steps(3)
    assert len(told["data_wait_s"]) == len(told["copy_s"]) == 3
    parts = zip(told["data_wait_s"], told["copy_s"], told["step_times_s"], strict=True)
    assert all(wait > 0 and copy > 0 and wait + copy < step for wait, copy, step in parts)


def test_a_thread_that_makes_batches_ends_with_whoever_asked_for_them() -> None:
    """It would draw from the same generators as the next model that is built."""
    before = threading.active_count()
    batches = data._ahead(itertools.count())
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    assert threading.active_count() == before + 1
    del batches
    assert threading.active_count() == before
