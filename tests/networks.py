"""Separate hosts on this machine: network namespaces, each connected to a switch by a link that can be slowed or cut.

Needs root, as `ip` and `tc` do. Processes in a namespace see only that network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests import ROOT

SUBNET = "10.77.0"
TOLD = "TRAINPACE_TOLD"
"""The environment variable for a FIFO, to which an arm of tests/telling.py writes a line in the middle of its steps."""

BURST_KB = 64
"""The burst that a limited link lets through at once."""


def why_not() -> str | None:
    """Why namespaces are not available here; None if they are."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not all(shutil.which(tool) for tool in ("ip", "tc")):
        return "ip and tc are not here: apt install iproute2"
    name = f"tp{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no namespace can be made here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return None


class Network:
    """So many hosts, numbered from 1. Use as a context manager."""

    def __init__(self, hosts: int) -> None:
        self._prefix = f"tp{os.getpid()}"
        self._switch = f"{self._prefix}-switch"
        self._numbers = range(1, hosts + 1)

    def name(self, host: int) -> str:
        return f"{self._prefix}-{host}"

    def address(self, host: int) -> str:
        return f"{SUBNET}.{host}"

    def __enter__(self) -> Network:
        self._make(self._switch)
        self._in(self._switch, "ip", "link", "add", "bridge", "type", "bridge")
        self._in(self._switch, "ip", "link", "set", "bridge", "up")
        for host in self._numbers:
            self._make(self.name(host))
            _run("ip", "link", "add", "eth", "netns", self.name(host), "type", "veth", "peer", "name", f"port{host}",
                 "netns", self._switch)  # fmt: skip
            self._in(self._switch, "ip", "link", "set", f"port{host}", "master", "bridge", "up")
            self._in(self.name(host), "ip", "address", "add", f"{self.address(host)}/24", "dev", "eth")
            self._in(self.name(host), "ip", "link", "set", "eth", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in (*map(self.name, self._numbers), self._switch):
            subprocess.run(["ip", "netns", "delete", name], check=False)

    def start(
        self, host: int, words: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a process on that host in a new session, with its output in a file in the folder."""
        log = open(folder / f"host-{host}.log", "a", encoding="utf-8")  # noqa: SIM115, the process has it
        return subprocess.Popen(
            # Each also has its own host name.
            ["ip", "netns", "exec", self.name(host), "unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"',
             f"host{host}", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )  # fmt: skip

    def shape(self, host: int, megabits: float) -> None:
        """Limit the host's link to so many Mbit/s in each direction."""
        for namespace, device in self._ends(host):
            self._in(namespace, "tc", "qdisc", "replace", "dev", device, "root", "tbf", "rate", f"{megabits}mbit",
                     "burst", f"{BURST_KB}kb", "latency", "200ms")  # fmt: skip

    def unshape(self, host: int) -> None:
        for namespace, device in self._ends(host):
            self._in(namespace, "tc", "qdisc", "delete", "dev", device, "root")

    def cut(self, host: int) -> None:
        """Cut the link at the switch, without notice to either side."""
        self._in(self._switch, "ip", "link", "set", f"port{host}", "down")

    def _ends(self, host: int) -> list[tuple[str, str]]:
        return [(self.name(host), "eth"), (self._switch, f"port{host}")]

    def _make(self, name: str) -> None:
        _run("ip", "netns", "add", name)
        self._in(name, "ip", "link", "set", "lo", "up")

    def _in(self, namespace: str, *words: str) -> None:
        _run("ip", "netns", "exec", namespace, *words)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)
