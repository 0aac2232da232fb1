"""Other hosts may talk to a run only if they know its token."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.hosts import wire
from harness.processes.channel import Channel

TOKEN = b"0123456789abcdef0123"


def admitted(other: Callable[[socket.socket], object], secret: bytes = TOKEN) -> dict[str, object] | str:
    """What a leader hears from the other side, or why it does not admit it."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=other, args=(theirs,))
    thread.start()
    try:
        channel, about = wire.admit(ours, secret)
        channel.send({"host": "here"})
        return about
    except wire.Refused as refused:
        return str(refused)
    finally:
        thread.join()
        ours.close()
        theirs.close()


def test_who_knows_the_token_is_let_in_and_welcomed() -> None:
    welcomes = []
    found = admitted(lambda theirs: welcomes.append(wire.greet(theirs, TOKEN, {"role": "host", "cores": 2})[1]))
    assert found == {"role": "host", "cores": 2}
    assert welcomes == [{"host": "here"}]


def test_another_token_is_refused_by_both_sides() -> None:
    refusals = []

    def other(theirs: socket.socket) -> None:
        with pytest.raises(wire.Refused) as refused:
            wire.greet(theirs, b"another token altogether", {})
        refusals.append(str(refused.value))
        theirs.close()

    assert admitted(other) == "it is not a trainpace that knows this token"
    assert refusals == ["the program that answers there does not know this token"]


def test_what_was_overheard_opens_nothing() -> None:
    """The leader's own proof sent back to it, and a proof from an earlier conversation."""

    def echo(theirs: socket.socket) -> None:
        channel = Channel(theirs)
        channel.send({"nonce": "1"})
        channel.send({"proof": channel.receive(5)["proof"], "about": {}})

    assert admitted(echo) == "it showed another token"
    heard: list[str] = []

    def listened_to(theirs: socket.socket) -> None:
        sent = theirs.sendall
        channel = Channel(theirs)
        channel.send({"nonce": "1"})
        heard.append(wire._proof(TOKEN, "joiner", channel.receive(5)["nonce"], "1"))
        sent(json.dumps({"proof": heard[0], "about": {}}).encode() + b"\n")

    assert admitted(listened_to) == {}

    def replay(theirs: socket.socket) -> None:
        channel = Channel(theirs)
        channel.send({"nonce": "1"})
        channel.receive(5)
        channel.send({"proof": heard[0], "about": {}})

    assert admitted(replay) == "it showed another token"


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\n",
        b"[" * 4000 + b"\n",
        b"x" * 100_000,
        b'{"nonce": 5}\n',
        b'{"nonce": "\\ud800"}\n{"proof": "\\ud800", "about": {}}\n',
        b'{"nonce": "1"}\n{"proof": null, "about": {}}\n',
        b"",
    ],
    ids=["http", "tls", "deep", "long", "number", "surrogate", "null", "nothing"],
)
def test_strangers_are_turned_away_whatever_they_say(said: bytes) -> None:
    def stranger(theirs: socket.socket) -> None:
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)

    assert isinstance(admitted(stranger), str)


def test_a_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "token"
    made = wire.token(file, make=True)
    assert len(made) == 64 and file.stat().st_mode & 0o777 == 0o600
    assert wire.token(file, make=True) == wire.token(file) == made
    (tmp_path / "short").write_text("secret\n")
    with pytest.raises(ValueError, match="has 6 letters"):
        wire.token(tmp_path / "short")
    with pytest.raises(ValueError, match="cannot be read"):
        wire.token(tmp_path / "none")


@pytest.mark.parametrize("text", ["10.0.0.1", "10.0.0.1:", ":29500", "host:port", "host:0", "host:70000"])
def test_a_bad_address_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        wire.address(text)


def test_addresses_are_read_and_shown() -> None:
    for text in ("10.0.0.1:29500", "[fe80::1]:29500", "node-7:80"):
        assert wire.shown(*wire.address(text)) == text
