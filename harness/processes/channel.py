"""JSON lines over a stream socket: how a run talks to its arms, here and on other hosts. Both ends block; neither
polls."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from harness.message import Message


class Closed(Exception):
    """The other end is gone."""


class Garbled(Closed):
    """The other end sent something that is not JSON: nothing after it can be understood."""


class Channel:
    """One end of a stream socket that carries one JSON object per line, of at most `line_bytes` bytes unless None."""

    def __init__(self, connection: socket.socket, line_bytes: int | None = None) -> None:
        self._socket = connection
        self._buffer = b""
        self.line_bytes = line_bytes

    def fileno(self) -> int:
        return self._socket.fileno()

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
        """The next message. If `on_tick` is given, it is called after every `tick_s` seconds of waiting.

        Raises Closed if the other end is gone, Garbled if what it sends is not a message, and TimeoutError after
        `timeout_s`.
        """
        return next(message for _, message in arriving([self], timeout_s, tick_s=tick_s, on_tick=on_tick))

    def next_line(self) -> Message | None:
        """The next message, if it has already arrived."""
        end = self._buffer.find(b"\n")
        if self.line_bytes is not None and max(end, len(self._buffer) if end < 0 else 0) > self.line_bytes:
            raise Garbled
        if end < 0:
            return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Garbled from error
        if not isinstance(message, dict):
            raise Garbled
        return message

    def fill(self) -> None:
        """Block until data arrives, and buffer it. Raises Closed if the other end is gone."""
        try:
            data = self._socket.recv(1 << 16)
        except OSError as error:
            raise Closed from error
        if not data:
            raise Closed
        self._buffer += data

    def close(self) -> None:
        self._socket.close()


def arriving(
    channels: Sequence[Channel],
    timeout_s: float | None = None,
    *,
    tick_s: float | None = None,
    on_tick: Callable[[], object] | None = None,
) -> Iterator[tuple[int, Message]]:
    """One message from each channel, in order of arrival, with the channel's index. A closed channel is noticed at
    once, whatever the others do. Raises as `Channel.receive` does."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    waiting = dict(enumerate(channels))
    while True:
        for index, channel in list(waiting.items()):
            if (message := channel.next_line()) is not None:
                del waiting[index]
                yield index, message
        if not waiting:
            return
        waits = [tick_s] if on_tick is not None else []
        if deadline is not None:
            waits.append(max(0.0, deadline - time.monotonic()))
        wait_s = min((wait for wait in waits if wait is not None), default=None)
        ready = select.select(list(waiting.values()), [], [], wait_s)[0]
        for channel in ready:
            channel.fill()
        if not ready and deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError
        if not ready and on_tick is not None:
            on_tick()
