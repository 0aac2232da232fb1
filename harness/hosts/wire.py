"""How two hosts connect: over TCP, each proves that it knows the token, and then they exchange JSON lines.

Each side sends a random number; the proof is an HMAC of both numbers under the token, so that the token itself never
travels and a recorded proof cannot be replayed. What follows is neither encrypted nor signed: as with
torch.distributed's own connections, the network between the hosts must be trusted.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
from pathlib import Path

from harness.message import Message
from harness.processes.channel import Channel, Closed

HANDSHAKE_S = 10.0
STRANGERS_BYTES = 4096
"""The longest line that is read from a peer that has not proved that it knows the token."""

TOKEN_LETTERS = 16
"""The minimum length of a token that was written by hand."""

SILENT_S, PROBE_S, PROBES = 5, 2, 5
"""After SILENT_S of silence the kernel probes PROBES times, PROBE_S apart: a dead peer is noticed within 15 s."""


class Refused(Exception):
    """The other side does not know the token, or is not trainpace."""


def token(file: Path, *, make: bool = False) -> bytes:
    """The token in a file. With `make`, a missing file is created with a random token, readable only by its owner.
    Raises ValueError if the file cannot be read or the token is easily guessed."""
    if make and not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as written:
            written.write(secrets.token_hex(32) + "\n")
    try:
        found = file.read_bytes().strip()
    except OSError as error:
        raise ValueError(
            f"token file {str(file)!r} cannot be read ({error.strerror}): give the file that the leading run named"
        ) from None
    if len(found) < TOKEN_LETTERS:
        raise ValueError(
            f"token file {str(file)!r} has {len(found)} letters: give at least {TOKEN_LETTERS}, such as from "
            "`openssl rand -hex 32`"
        )
    return found


def address(text: str) -> tuple[str, int]:
    """Parse HOST:PORT, or [HOST]:PORT. Raises ValueError for anything else."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"address {text!r} is not HOST:PORT: give one such as 10.0.0.1:29500")
    return host.strip("[]"), int(port)


def shown(host: str, port: int) -> str:
    """The inverse of `address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def keep_alive(connection: socket.socket) -> None:
    """Let the kernel notice that the other host is gone, and send small messages at once."""
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENT_S),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_S),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * (SILENT_S + PROBE_S * PROBES)),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    ):
        connection.setsockopt(level, option, value)


def greet(connection: socket.socket, secret: bytes, about: Message) -> tuple[Channel, Message]:
    """The joining side: prove knowledge of the token, check the leader's proof, and send `about`. Returns the leader's
    welcome. Raises Refused."""
    channel, own = Channel(connection, STRANGERS_BYTES), secrets.token_hex(16)
    try:
        channel.send({"nonce": own})
        theirs = channel.receive(HANDSHAKE_S)
        if not _is_proof(theirs.get("proof"), secret, "leader", theirs.get("nonce"), own):
            raise Refused("the program that answers there does not know this token")
        channel.send({"proof": _proof(secret, "joiner", theirs["nonce"], own), "about": about})
        channel.line_bytes = None
        welcome = channel.receive(HANDSHAKE_S)
    except (Closed, TimeoutError):
        raise Refused("the program that answers there is not a trainpace that knows this token") from None
    if "refused" in welcome:
        raise Refused(str(welcome["refused"]))
    return channel, welcome


def admit(connection: socket.socket, secret: bytes) -> tuple[Channel, Message]:
    """The leading side: check the proof. Returns what the other side reports about itself; it then waits for a welcome.
    Raises Refused."""
    channel, own = Channel(connection, STRANGERS_BYTES), secrets.token_hex(16)
    try:
        nonce = channel.receive(HANDSHAKE_S).get("nonce")
        if not isinstance(nonce, str):
            raise Refused("it sent no number to answer")
        channel.send({"nonce": own, "proof": _proof(secret, "leader", own, nonce)})
        shown = channel.receive(HANDSHAKE_S)
    except (Closed, TimeoutError):
        raise Refused("it is not a trainpace that knows this token") from None
    about = shown.get("about")
    if not _is_proof(shown.get("proof"), secret, "joiner", own, nonce) or not isinstance(about, dict):
        raise Refused("it showed another token")
    channel.line_bytes = None
    return channel, about


def _proof(secret: bytes, role: str, leaders: str, joiners: str) -> str:
    return hmac.new(secret, f"{role} {leaders} {joiners}".encode(errors="backslashreplace"), hashlib.sha256).hexdigest()


def _is_proof(shown: object, secret: bytes, role: str, leaders: object, joiners: object) -> bool:
    if not all(isinstance(item, str) for item in (shown, leaders, joiners)):
        return False
    return hmac.compare_digest(
        str(shown).encode(errors="backslashreplace"), _proof(secret, role, str(leaders), str(joiners)).encode()
    )
