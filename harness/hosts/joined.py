"""A host that has joined a run: it forks the ranks that the leading host asks for, and exits when the run does."""

from __future__ import annotations

import dataclasses
import platform
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import __version__, temporary
from bench.corpus import open_corpus
from bench.spec import WorkloadSpec
from harness.hosts import wire
from harness.message import Message
from harness.processes.channel import Closed
from harness.processes.failures import ArmFailed, ForkServerFailed
from harness.processes.fork_server import ForkServer
from harness.telemetry import cgroups, conditions
from harness.telemetry.gpus import Gpus
from harness.telemetry.surroundings import software

TASKS = (
    "harness.preparation.machine:probe_device",
    "harness.preparation.sniffing:products",
    "harness.preparation.sniffing:copies",
    "harness.preparation.sniffing:reductions",
)
"""The tasks that a leading host may run here, besides arms."""

RETRY_S = 1.0
"""Between two attempts to reach a leader that does not answer yet: a scheduler starts all hosts at once."""


def about() -> Message:
    """What this host reports about itself."""
    return {
        "host": platform.node(),
        "trainpace": __version__,
        "python": platform.python_version(),
        "packages": software()["packages"],
        "cores": cgroups.cores(),
        "memory_bytes": cgroups.memory_bytes(),
    }


def join(leader: tuple[str, int], secret: bytes, *, log: Path, wait_s: float, say: Callable[[str], object]) -> None:
    """Serve the run that the host at `leader` leads until it ends. The output of arms is appended to `log`.

    Raises ValueError if nobody answers within `wait_s`, or if the leader refuses.
    """
    try:
        channel, welcome = wire.greet(_reached(leader, wait_s), secret, {"role": "host", **about()})
    except wire.Refused as refused:
        raise ValueError(f"{leader[0]}:{leader[1]} cannot be joined: {refused}") from None
    say(f"joined {leader[0]}:{leader[1]} as {welcome['host']}")
    with (
        ForkServer(modules=welcome["modules"]) as fork_server,
        temporary.folder("joined") as caches,
    ):
        served = _Served(leader, secret, fork_server, log.resolve(), caches)
        while True:
            try:
                channel.send(served.answer(channel.receive()))
            except Closed:
                break
    say("the run has ended")


def _reached(leader: tuple[str, int], wait_s: float) -> socket.socket:
    """A connection to the leader, once it answers. Raises ValueError if it does not in time."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            connection = socket.create_connection(leader, timeout=wire.HANDSHAKE_S)
        except OSError as error:
            if time.monotonic() + RETRY_S > deadline:
                raise ValueError(
                    f"nobody answers at {leader[0]}:{leader[1]} ({error}): start the leading run there with --hosts "
                    f"and --listen, and open its port in the firewall"
                ) from None
            time.sleep(RETRY_S)
            continue
        connection.settimeout(None)
        wire.keep_alive(connection)
        return connection


@dataclass(frozen=True, slots=True)
class _Served:
    """Answers what the leading host asks for."""

    leader: tuple[str, int]
    secret: bytes
    fork_server: ForkServer
    log: Path
    caches: Path

    def answer(self, message: Message) -> Message:
        """The result of a command, or how it failed."""
        try:
            return self._answer(message)
        except ArmFailed as failure:
            return {"failed": failure.status, "reason": failure.reason}
        except (ForkServerFailed, ValueError, OSError, wire.Refused) as error:
            return {"failed": "crashed", "reason": str(error)}

    def _answer(self, message: Message) -> Message:
        match message["do"]:
            case "fork":
                return self._fork(message)
            case "reap":
                return self.fork_server.reap(message["pid"], message["grace_s"], stacks=message.get("stacks", False))
            case "run":
                _check_task(message["task"])
                return {"answer": self.fork_server.run(message["task"], message["arguments"], message["timeout_s"])}
            case "clock":
                return {"time_s": time.time()}
            case "reading":
                # GPUs are not read here: arms report by themselves which ones they have.
                return {"reading": dataclasses.asdict(conditions.read(Gpus("cpu", ())))}
        raise ValueError(f"a host that has joined cannot do {message['do']!r}")

    def _fork(self, message: Message) -> Message:
        """Fork the ranks of an arm here, each with its own connection to the leading host."""
        request: Message = dict(message["request"])
        if "task" in request:
            _check_task(request["task"])
        own = self._reach({"arm": request["span"]["id"]})
        address = own.getsockname()[0]
        connections = [own, *(self._reach({"arm": request["span"]["id"]}) for _ in range(1, message["ranks"]))]
        request["span"] |= {"address": address, "interface": interface(address)}
        request["log"] = str(self.log)
        if "environment" in request:
            request["environment"] = {
                name: str(self.caches / Path(value).name) for name, value in request["environment"].items()
            }
        if "workload" in request:
            request["corpus"] = self._corpus(request)
        return {"pid": self.fork_server.fork_with(request, connections)}

    def _reach(self, about: Message) -> socket.socket:
        connection = socket.create_connection(self.leader, timeout=wire.HANDSHAKE_S)
        connection.settimeout(None)
        wire.keep_alive(connection)
        wire.greet(connection, self.secret, {"role": "rank", **about})
        return connection

    def _corpus(self, request: Message) -> Message:
        """The same text, where this host keeps it. Raises ValueError if it is a different one."""
        found = open_corpus(*WorkloadSpec.from_json(request["workload"]).source)
        if found.sha256 != request["corpus"]["sha256"]:
            raise ValueError(f"the text on {platform.node()} differs from the text on the leading host: copy it there")
        own = found.as_message()
        return own | {name: value for name, value in request["corpus"].items() if name == "part"}


def _check_task(name: str) -> None:
    if name not in TASKS:
        raise ValueError(f"a host that has joined cannot do {name!r}")


def interface(address: str) -> str:
    """The network interface that has this address. Raises ValueError if none has it."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(item.address.partition("%")[0] == address for item in addresses):
            return name
    raise ValueError(f"no network interface here has the address {address}")


def name_of(told: str, taken: list[str]) -> str:
    """What to call a host that reports this name: just that, with a number if another host has the same name."""
    clean = "".join(letter for letter in told if letter.isprintable())[:64] or "host"
    number = sum(name.partition(" #")[0] == clean for name in taken)
    return f"{clean} #{number + 1}" if number else clean
