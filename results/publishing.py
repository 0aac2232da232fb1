"""A run for publication: its records and machine without names, hosts and paths, and a list of what was left out."""

from __future__ import annotations

import dataclasses
import getpass
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.spec import Plan
from harness.record import Machine, Record
from results.store import checksum

PATH = re.compile(r"(?<![\w.:/])~?(?:/[^\s/:'\"<>|,;()]+)+/?|(?<![\w/])[A-Za-z]:\\[^\s'\"<>|]+")
"""An absolute path within a sentence."""

LEFT_OUT = (
    "the folders in paths of models, text and checkpoints, and in messages; file names stay",
    "the names of hosts, which are numbered instead, and of the user",
    "the machine's identity, replaced by a hash of it, so that runs of one machine can still be recognised",
    "the git commit, and whether there were uncommitted changes",
    "network addresses",
)
"""What is not in a published run."""

ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The part of a run that others may see."""

    records: list[Record]
    machines: dict[str, Machine]
    plan: Plan


def published(records: Sequence[Record], machines: Sequence[Machine], plan: Plan) -> Published:
    """The same run without anything that identifies its owner."""
    told = [name for machine in machines for name in machine.hosts]
    hosts = dict.fromkeys([*told, *(name for record in records for name in record.measurement.rank_hosts)])
    names = {name: f"host {number}" for number, name in enumerate(hosts, 1)}
    clean = _cleaner(names)
    return Published(
        records=[_record(record, clean, names) for record in records],
        machines={made.machine_id: made for made in (_machine(machine, clean, names) for machine in machines)},
        plan=Plan.from_json(_everywhere(plan.to_json(), clean)),
    )


def _another_id(machine_id: str) -> str:
    return checksum(f"published {machine_id}".encode())[: len(machine_id)]


def _machine(machine: Machine, clean: Callable[[str], str], names: dict[str, str]) -> Machine:
    return dataclasses.replace(
        machine,
        machine_id=_another_id(machine.machine_id),
        git_commit=None,
        git_dirty=None,
        hosts=[names[name] for name in machine.hosts],
        unknown={name: clean(reason) for name, reason in machine.unknown.items()}
        | {"git_commit": "it was left out of the published run"},
    )


def _record(record: Record, clean: Callable[[str], str], names: dict[str, str]) -> Record:
    measurement = dataclasses.replace(
        record.measurement,
        rank_hosts=[names[name] for name in record.measurement.rank_hosts],
        unknown=[clean(note) for note in record.measurement.unknown],
    )
    certificate = record.certificate
    if certificate and certificate.losses_unknown:
        certificate = dataclasses.replace(certificate, losses_unknown=clean(certificate.losses_unknown))
    return dataclasses.replace(
        record,
        machine_id=_another_id(record.machine_id),
        workload=clean(record.workload),
        command=clean(record.command),
        reason=None if record.reason is None else clean(record.reason),
        disturbances=[clean(words) for words in record.disturbances],
        measurement=measurement,
        certificate=certificate,
    )


def _cleaner(hosts: dict[str, str]) -> Callable[[str], str]:
    """A function that removes names and folders from a text."""
    private = {**hosts, platform.node(): "host", getpass.getuser(): "user"}
    # Whole words, the longest first, because one may be part of another.
    words = sorted((word for word in private if len(word) > 1), key=len, reverse=True)
    known = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, words)) + r")(?!\w)") if words else None

    def clean(text: str) -> str:
        text = PATH.sub(lambda found: Path(found[0].replace("\\", "/")).name or "/", text)
        text = ADDRESS.sub("0.0.0.0", text)
        return known.sub(lambda found: private[found[0]], text) if known else text

    return clean


def _everywhere(value: Any, clean: Callable[[str], str]) -> Any:
    """Apply `clean` to all strings in JSON data."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list | tuple):
        return [_everywhere(item, clean) for item in value]
    return {key: _everywhere(item, clean) for key, item in value.items()} if isinstance(value, dict) else value
