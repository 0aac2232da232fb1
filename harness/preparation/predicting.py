"""Predictions of arms, made in forked processes and kept for reuse."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import bench
import harness
from bench.composition import compose, ranks
from bench.corpus import cache_folder, write_atomically
from bench.host import Host
from harness.message import Message
from harness.prediction.limits import FLASH, HOPPER
from harness.preparation.prepared import TASK_TIMEOUT_S, Entry
from harness.processes.failures import ArmFailed
from harness.processes.fork_server import ForkServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked about each arm: a task of harness.prediction.tasks, on a host's device, with a seed. `packages` are
    the versions that the answer holds for."""

    task: str
    host: Host
    seed: int
    packages: Mapping[str, str]

    @property
    def where(self) -> Message:
        # GPUs with the same kernels have the same answer.
        known = self.host.capability
        capability = max(least for least in ((0, 0), FLASH, HOPPER) if least <= known) if known else None
        return {"device": self.host.device, "capability": capability, "seed": self.seed}


def predictions(
    question: Question, entry: Entry, compositions: Sequence[tuple[str, ...]], fork_server: ForkServer
) -> list[Message]:
    """The answer for each composition of a workload: kept from earlier, or found out now."""
    arms = [_arm(techniques, question.host) for techniques in compositions]
    files = [_file(question, entry, arm) for arm in arms]
    known: dict[int, Message] = {
        index: json.loads(file.read_text(encoding="utf-8"))
        for index, file in enumerate(files)
        if file is not None and file.is_file()
    }
    missing = {index: arm for index, arm in enumerate(arms) if index not in known}
    if missing:
        for index, answer in _asked(question, entry, missing, fork_server).items():
            known[index] = answer
            _keep(files[index], answer)
    return [known[index] for index in range(len(arms))]


def _arm(techniques: Sequence[str], host: Host) -> Message:
    shared = ranks(compose(techniques), host)
    return {"techniques": list(techniques), "count": shared.count, "replicas": shared.replicas}


def _keep(file: Path | None, answer: Message) -> None:
    """Keep the answer for reuse, if there is a place for it. A missing answer is not kept: it may be known next
    time."""
    if file is not None and "reason" not in answer:
        with contextlib.suppress(OSError):
            write_atomically(file, lambda partial: Path(partial).write_text(json.dumps(answer), encoding="utf-8"))


def _asked(
    question: Question, entry: Entry, arms: Mapping[int, Message], fork_server: ForkServer
) -> dict[int, Message]:
    """The answer for each arm, by its number: found out in as many processes as there are cores."""
    numbers, cores = list(arms), question.host.cores
    shares = [share for first in range(cores) if (share := numbers[first::cores])]

    def ask(share: list[int]) -> list[Message]:
        asked = {"request": entry.request, "arms": [arms[number] for number in share], "where": question.where}
        try:
            answers: list[Message] = fork_server.run(f"harness.prediction.tasks:{question.task}", asked, TASK_TIMEOUT_S)
        except (ArmFailed, ValueError) as failure:
            if len(share) == 1:
                return [{"reason": str(failure)}]
            # One of them has ended the process: ask about each of the others by itself.
            return [answer for number in share for answer in ask([number])]
        return answers

    with ThreadPoolExecutor(len(shares)) as pool:
        told = list(pool.map(ask, shares))
    pairs = (zip(share, answers, strict=True) for share, answers in zip(shares, told, strict=True))
    return dict(itertools.chain.from_iterable(pairs))


def _file(question: Question, entry: Entry, arm: Message) -> Path | None:
    """Where an answer is kept, under a digest of everything it depends on. None if that is not all known."""
    if entry.sha256 is None:
        return None
    facts = (question.task, question.where, _code(), sorted(question.packages.items()))
    digest = hashlib.sha256(repr((facts, entry.request, entry.sha256, arm)).encode()).hexdigest()[:24]
    return cache_folder() / "predictions" / f"{digest}.json"


@cache
def _code() -> str:
    """The hash of all files that decide what an arm takes."""
    found = hashlib.sha256()
    for package in (bench, harness):
        for file in sorted(Path(next(iter(package.__path__))).rglob("*.py")):
            found.update(file.read_bytes())
    return found.hexdigest()
