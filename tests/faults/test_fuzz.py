"""Whatever is in a file or comes over a socket is read, or refused with a message fit for users."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import recipe
from bench.api.runs import plan_of
from bench.api.stages import Asked
from bench.host import Host
from bench.plans import quick
from bench.spec import Plan, WorkloadSpec, parse_composition
from harness.hosts import wire
from harness.processes.channel import Channel, Closed
from harness.processes.worker import run_rank
from results import settings as gate_settings
from results import store
from tests.samples import MACHINE, record

often = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""The settings of each test; eight tests make two thousand cases."""

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)

PLAN: dict[str, Any] = quick(Host(device="cpu")).to_json()
WORKLOAD: dict[str, Any] = PLAN["workloads"][0]
RECIPE: dict[str, Any] = {"techniques": ["compile"], "ladder": {"workload": WORKLOAD}}
ASKED: dict[str, Any] = {
    "workload": WORKLOAD,
    "device": "cpu",
    "minutes": 10.0,
    "memory_bytes": None,
    "allowed": [],
    "named": [],
    "seed": 0,
    "objective": "pace",
}
SETTINGS = """
[tool.trainpace.gate]
tolerance = 0.02
models = ["gpt2/nano"]
[tool.trainpace.gate.workloads."gpt2/nano"]
harm = 0.05
[[tool.trainpace.gate.acknowledge]]
workload = "gpt2/nano"
slowdown = 0.1
reason = "x"
expires = 2027-01-01
"""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to everything in it."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def put(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    """A copy with something else at this path."""
    if not path:
        return other
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = put(value[path[0]], path[1:], other)
    return copied


def spoilt(value: Any) -> st.SearchStrategy[Any]:
    """The value with something else somewhere."""
    return st.builds(lambda path, other: put(value, path, other), st.sampled_from(list(places(value))), VALUES)


def read_or_refused(read: Callable[[], object]) -> None:
    with contextlib.suppress(ValueError):
        read()


@often
@given(st.text() | st.lists(st.sampled_from(["compile", "+", "ddp_2", " ", "é"])).map("".join))
def test_compositions(text: str) -> None:
    read_or_refused(lambda: parse_composition(text))


@often
@given(spoilt(PLAN))
def test_plans(tmp_path: Path, data: Any) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(data), encoding="utf-8")
    read_or_refused(lambda: plan_of(tmp_path))


@often
@given(spoilt(RECIPE))
def test_recipes(tmp_path: Path, data: Any) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps(data), encoding="utf-8")
    read_or_refused(lambda: recipe.read(tmp_path / "recipe.json"))


@often
@given(spoilt(ASKED))
def test_what_a_tuning_was_asked(tmp_path: Path, data: Any) -> None:
    (tmp_path / "asked.json").write_text(json.dumps(data), encoding="utf-8")
    read_or_refused(lambda: Asked.read(tmp_path))


@often
@given(st.integers(0, len(SETTINGS)), st.integers(0, 20), st.text(max_size=10) | VALUES.map(json.dumps))
def test_settings(tmp_path: Path, place: int, length: int, other: str) -> None:
    text = SETTINGS[:place] + other + SETTINGS[place + length :]
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8", errors="replace")
    read_or_refused(lambda: gate_settings.find(tmp_path))


@often
@given(st.lists(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()), max_size=4))
def test_strangers_at_the_door(said: list[bytes]) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b"\n".join(said) + b"\n")
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(wire.Refused):
        wire.admit(ours, b"0123456789abcdef")
    ours.close()
    theirs.close()


@often
@given(st.dictionaries(st.sampled_from(["do", "with", "x"]), VALUES) | VALUES)
def test_what_an_arm_is_told(message: Any) -> None:
    """An arm that is not built yet answers how it failed, or ends if the input is not a message."""
    ours, theirs = socket.socketpair()

    def arm() -> None:
        with contextlib.suppress(Exception):  # It has already reported why.
            run_rank({}, theirs, 0, 1)
        theirs.close()

    thread = threading.Thread(target=arm)
    thread.start()
    channel = Channel(ours)
    ours.sendall(json.dumps(message).encode() + b"\n")
    try:
        assert channel.receive(10)["failed"] == "crashed"
    except Closed:
        assert not isinstance(message, dict)
    ours.close()
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    plan = Plan(name="p", workloads=(WorkloadSpec(model="gpt2/nano"),), compositions=(("adam",),))
    folder = tmp_path_factory.mktemp("part")
    return store.write(record("adam", 0, [0.1, 0.2]), folder, machine=MACHINE, plan=plan).read_bytes()


@often
@given(st.data())
def test_parts_without_a_checksum(tmp_path: Path, part: bytes, data: st.DataObject) -> None:
    content = bytearray(part)
    for _ in range(data.draw(st.integers(1, 4))):
        # Many of them in the footer, which says how everything else is read.
        place = data.draw(st.integers(0, len(part) - 1) | st.integers(len(part) - 4000, len(part) - 1))
        content[place] = data.draw(st.integers(0, 255))
    file = tmp_path / "part-x.parquet"
    file.write_bytes(content)
    read_or_refused(lambda: [store.from_row(row) for row in store.read_file(file).to_pylist()])
