"""JSON lines over a socket pair: how a run talks with its arms. Both ends block; nobody polls."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable

from harness.message import Message


class Closed(Exception):
    """The other end is gone."""


class Channel:
    """One end of a stream socket that carries one JSON object a line."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = b""

    def send(self, message: Message) -> None:
        """Raises Closed if the other end is gone."""
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise Closed from error

    def receive(
        self,
        timeout_s: float | None = None,
        *,
        tick_s: float | None = None,
        on_tick: Callable[[], object] | None = None,
    ) -> Message:
        """The next message. With `on_tick` it is called every `tick_s` seconds of waiting.

        Raises Closed if the other end is gone and TimeoutError after `timeout_s`.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            waits = [tick_s] if on_tick is not None else []
            if deadline is not None:
                waits.append(max(0.0, deadline - time.monotonic()))
            wait_s = min((wait for wait in waits if wait is not None), default=None)
            if select.select([self._socket], [], [], wait_s)[0]:
                self._fill()
            elif deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError
            elif on_tick is not None:
                on_tick()
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: Message = json.loads(line)
        return message

    def _fill(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except OSError as error:
            raise Closed from error
        if not data:
            raise Closed
        self._buffer += data

    def close(self) -> None:
        self._socket.close()
