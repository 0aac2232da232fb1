"""A training shows what a model has learnt, reproducibly, and whether it was trained on held-out data."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

import tests.planted  # noqa: F401  compositions are made in this process too
from bench.corpus import Corpus, Part, open_corpus
from bench.spec import Plan, WorkloadSpec
from harness.learning.curve import Asked, Training
from harness.learning.training import Trainings, divided
from harness.preparation.prepared import prepare
from harness.processes.fork_server import ForkServer
from harness.record import Status

# It has no dropout, which each composition would draw differently.
SPEC = WorkloadSpec(model="llama/nano", batch=4, sequence=32)


def trained(fork_server: ForkServer, tmp_path: Path, *asked: Asked, spec: WorkloadSpec = SPEC) -> list[Training]:
    prepared = prepare(Plan(name="learning", workloads=(spec,), compositions=()), fork_server)
    entry, facts = divided(prepared.entries[0], fork_server)
    assert facts["samples"] > 100 and 0.9 < facts["bytes_per_token"] <= 1
    trainings = Trainings(prepared.host, entry, fork_server, tmp_path / "log")
    found = {item.asked: item for item in trainings.run(asked)}
    return [found[item] for item in asked]


def untimed(training: Training) -> Training:
    return dataclasses.replace(training, updates_s=0.0, other_s=0.0)


def asked(*techniques: str, seed: int = 0, rate: float = 30.0, updates: int = 40) -> Asked:
    return Asked(techniques=techniques, seed=seed, rate=rate, updates=updates)


def test_a_model_learns_and_a_seed_is_a_training(fork_server: ForkServer, tmp_path: Path) -> None:
    first, other, slow = trained(fork_server, tmp_path, asked(), asked(seed=1), asked(rate=1.0))
    (again,) = trained(fork_server, tmp_path, asked())
    assert untimed(first) == untimed(again)
    assert first.status is Status.OK and first.updates[0] == 0 and first.updates[-1] == 40
    assert len(first.updates) == len(first.held_out_losses) == len(first.train_losses) + 1
    # At first, all bytes are equally likely.
    assert first.held_out_losses[0] == pytest.approx(math.log(260), rel=0.05)
    assert first.held_out_losses[-1] < 0.8 * first.held_out_losses[0] < slow.held_out_losses[-1]
    assert first.tokens_per_update == 4 * 32 and first.samples_per_update == 4
    assert other.held_out_losses != first.held_out_losses


def test_a_training_goes_on_until_it_has_reached_the_loss(fork_server: ForkServer, tmp_path: Path) -> None:
    plain, whole = trained(fork_server, tmp_path, asked(updates=24), asked(updates=72))
    target = min(loss for update, loss in zip(whole.updates, whole.held_out_losses, strict=True) if update <= 48)
    assert min(plain.held_out_losses) > target, "the loss is reached before it could go on"
    early, late, never = trained(
        fork_server,
        tmp_path,
        *[dataclasses.replace(asked(updates=24), until_loss=loss) for loss in (5.5, target, 0.1)],
    )
    # The first updates are the same, however long it continues.
    for longer in (early, late, never):
        assert longer.held_out_losses[: len(plain.updates)] == plain.held_out_losses
    assert early.updates == plain.updates
    assert 24 < late.updates[-1] < 72
    assert late.held_out_losses[-1] <= target < min(late.held_out_losses[:-1])
    assert never.status is Status.OK and never.updates[-1] == never.asked.most_updates == 72


def test_a_training_ends_by_itself_once_nothing_more_is_learnt(fork_server: ForkServer, tmp_path: Path) -> None:
    ended, whole = trained(
        fork_server, tmp_path, asked("early_stopping_3", rate=0.0), asked("early_stopping_3", updates=24)
    )
    assert ended.status is Status.OK and len(ended.updates) == 1 + 3 and len(set(ended.held_out_losses)) == 1
    assert ended.stopped_after == ended.updates[-1] < 40
    assert whole.stopped_after is None and whole.updates[-1] == 24


def test_a_model_of_two_halves_is_scored_by_what_it_writes(fork_server: ForkServer, tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, model="t5/nano", sequence=64)
    for training in trained(fork_server, tmp_path, asked(), asked("narrower"), spec=spec):
        assert training.status is Status.OK, training.reason
        assert training.scores.keys() == {"bleu", "chrf"}
        assert all(0 <= score <= 100 for score in training.scores.values())


@pytest.mark.parametrize("names", [("accumulate_2",), ("ddp_2",)], ids="+".join)
def test_techniques_of_the_same_arithmetic_learn_the_same(
    fork_server: ForkServer, tmp_path: Path, names: tuple[str, ...]
) -> None:
    plain, other = trained(fork_server, tmp_path, asked(updates=8), asked(*names, updates=8))
    assert other.status is Status.OK, other.reason
    assert other.held_out_losses == pytest.approx(plain.held_out_losses, rel=2e-3)
    assert other.tokens_per_update == plain.tokens_per_update


def test_who_is_taught_what_is_held_out_is_seen(fork_server: ForkServer, tmp_path: Path) -> None:
    honest, cheat = trained(fork_server, tmp_path, asked(), asked("planted_held_out"))
    assert cheat.status is Status.OK, cheat.reason
    assert honest.seen_share < 0.02
    # In this much text, part of the held-out text is recognised.
    assert cheat.seen_share > 0.1


def test_what_cannot_go_on_says_how_far_it_came(fork_server: ForkServer, tmp_path: Path) -> None:
    diverged, unable = trained(fork_server, tmp_path, asked("sgd", rate=1e9), asked("planted_unsupported"))
    assert diverged.status is Status.DIVERGED and diverged.updates[0] == 0
    assert unable.status is Status.UNSUPPORTED and unable.updates == () and unable.reason


def test_the_loss_is_that_of_the_text_whatever_an_arm_trains_on(fork_server: ForkServer, tmp_path: Path) -> None:
    """It excludes a teacher's term, and dropout is off: before the first update all arms are equal."""
    plain, smoothed = trained(fork_server, tmp_path, asked(updates=2), asked("planted_doubled_loss", updates=2))
    assert smoothed.held_out_losses[0] == pytest.approx(plain.held_out_losses[0])
    assert smoothed.train_losses[0] == pytest.approx(2 * plain.train_losses[0], rel=1e-3)


def test_the_held_out_part_is_the_text_of_no_training() -> None:
    corpus: Corpus = open_corpus(None)
    assert list(corpus.of(Part.HELD_OUT).documents())
