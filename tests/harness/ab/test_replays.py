"""When a repetition of two sides is replayed."""

from __future__ import annotations

import dataclasses

from harness.ab.comparison import _is_to_replay
from harness.ab.pair import Pair
from tests.pairs import certificate, pair


def replayed(repetition: int, base_bytes: int | None = None, head_bytes: int | None = None) -> Pair:
    made = pair(repetition)
    made.base.measurement.allocated_peak_bytes, made.head.measurement.allocated_peak_bytes = base_bytes, head_bytes
    seen = certificate(first_losses=[5.0])
    return dataclasses.replace(made, head=dataclasses.replace(made.head, certificate=seen))


def test_once_and_once_more_where_the_head_allocates_more() -> None:
    assert _is_to_replay([])
    assert _is_to_replay([pair(0)]), "a repetition that was disturbed too early was not replayed"
    assert not _is_to_replay([replayed(0)])
    assert not _is_to_replay([replayed(0, 1000, 1000), pair(1)])
    assert not _is_to_replay([replayed(0, 1000, 999)])
    assert _is_to_replay([replayed(0, 1000, 1001), pair(1)])
    assert not _is_to_replay([replayed(0, 1000, 1001), replayed(1, 1000, 1001)])


def test_several_ranks_and_other_times_are_not_held_to_the_byte() -> None:
    made = replayed(0, 1000, 1001)
    assert made.allocated_bytes == (1000, 1001)
    shared = dataclasses.replace(made.head, world_size=2)
    for other in (
        dataclasses.replace(made, together=False),
        dataclasses.replace(made, head=shared),
        dataclasses.replace(made, head=dataclasses.replace(made.head, device="cuda")),
        replayed(0, 1000, None),
    ):
        assert other.allocated_bytes is None
