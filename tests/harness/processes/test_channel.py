"""JSON lines over a socket pair."""

import socket

import pytest

from harness.processes.channel import Channel, Closed


@pytest.fixture
def ends() -> tuple[Channel, Channel]:
    first, second = socket.socketpair()
    return Channel(first), Channel(second)


def test_messages_arrive_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    sent = [{"n": index, "times_s": [0.1] * 50} for index in range(20)]
    for message in sent:
        ours.send(message)
    assert [theirs.receive(5) for _ in sent] == sent


def test_closing_is_noticed_on_both_sides(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    theirs.close()
    with pytest.raises(Closed):
        ours.receive()
    with pytest.raises(Closed):
        ours.send({"x": 1})


def test_waiting_ticks_and_then_times_out(ends: tuple[Channel, Channel]) -> None:
    ticks: list[int] = []
    with pytest.raises(TimeoutError):
        ends[0].receive(0.2, tick_s=0.02, on_tick=lambda: ticks.append(1))
    assert ticks
