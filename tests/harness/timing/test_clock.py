"""The host's clock loses nothing between the steps of a block."""

import pytest
import torch

from harness.timing.clock import HostClock, clock_for


def test_steps_add_up_to_the_block() -> None:
    clock = HostClock()
    clock.start()
    for _ in range(5):
        sum(range(1000))
        clock.mark()
    times = clock.stop()
    assert len(times.step_times_s) == 5
    assert all(time_s > 0 for time_s in times.step_times_s)
    assert sum(times.step_times_s) == pytest.approx(times.host_s)


def test_a_clock_is_started_anew_for_each_block() -> None:
    clock = clock_for(torch.device("cpu"))
    counts = []
    for count in (1, 3):
        clock.start()
        for _ in range(count):
            clock.mark()
        counts.append(len(clock.stop().step_times_s))
    assert counts == [1, 3]
