"""The entrance for other hosts: whoever proves knowledge of the token is let through to the leading host."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import defaultdict

from harness.hosts import wire
from harness.message import Message
from harness.processes.channel import Channel, Closed
from harness.processes.failures import ArmFailed
from harness.record import Status

ARRIVAL_S = 20.0
"""How long the ranks that a host has forked may take to arrive."""

HANDSHAKES = 64
"""How many handshakes may be in progress at once."""


class Listener:
    """Lets in whoever proves knowledge of the token: hosts, and the ranks of arms."""

    def __init__(self, address: tuple[str, int], secret: bytes) -> None:
        """Raises ValueError if it cannot listen."""
        self._secret = secret
        try:
            family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
            self._socket = socket.create_server(address, family=family, backlog=256)
        except OSError as error:
            raise ValueError(
                f"cannot listen on {address[0]}:{address[1]} ({error.strerror or error}): give --listen an address of "
                "this machine and a free port"
            ) from None
        self._hosts: list[tuple[Channel, Message, str]] = []
        self._ranks: dict[str, list[Channel]] = defaultdict(list)
        self._own: dict[str, str] = {}
        self._arrived = threading.Condition()
        self._handshakes = threading.BoundedSemaphore(HANDSHAKES)
        threading.Thread(target=self._accept, daemon=True).start()

    def host(self, timeout_s: float) -> tuple[Channel, Message, str] | None:
        """A host that wants to join: its channel, what it reports about itself, and its address. None if none came."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._hosts, max(0.0, timeout_s))
            return self._hosts.pop(0) if self._hosts else None

    def ranks(self, arm: str, count: int) -> list[Channel]:
        """The channels of an arm's ranks on a host. Raises ArmFailed if they have not arrived."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self._ranks[arm]) >= count, ARRIVAL_S):
                raise ArmFailed(Status.CRASHED, "the ranks of a joined host could not reach this one")
            return self._ranks.pop(arm)

    def address_for(self, address: str) -> str:
        """This machine's address on the network that it shares with the host at `address`."""
        return self._own[address]

    def _accept(self) -> None:
        while True:
            try:
                connection, (address, *_) = self._socket.accept()
            except OSError:
                return  # It was closed.
            if self._handshakes.acquire(blocking=False):
                threading.Thread(target=self._heard, args=(connection, address), daemon=True).start()
            else:
                connection.close()

    def _heard(self, connection: socket.socket, address: str) -> None:
        with contextlib.suppress(OSError):
            self._admit(connection, address)
        self._handshakes.release()

    def _admit(self, connection: socket.socket, address: str) -> None:
        try:
            wire.keep_alive(connection)
            channel, told = wire.admit(connection, self._secret)
            if told.get("role") == "rank":
                # The first message must come from the rank itself.
                channel.send({"welcome": True})
        except (wire.Refused, Closed, OSError):
            connection.close()
            return
        with self._arrived:
            if told.get("role") == "rank":
                self._ranks[str(told.get("arm"))].append(channel)
            elif told.get("role") == "host":
                self._own[address] = connection.getsockname()[0]
                self._hosts.append((channel, told, address))
            self._arrived.notify_all()

    def close(self) -> None:
        # Shutdown wakes a thread that waits in accept; close alone does not.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
