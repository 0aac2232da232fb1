"""An arm's measurement, gathered from what its ranks answer."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from harness.message import Message
from harness.record import Measurement

PEAKS = ("rss_start_bytes", "rss_peak_bytes", "rss_file_growth_bytes", "allocated_peak_bytes", "reserved_peak_bytes")


def steps_together(answers: Sequence[Message], replicas: int) -> Message:
    """Combine a step over all ranks: it lasts as long as on the slowest rank, and its loss is the mean over the equal
    shares of the batch, one for each of the `replicas`."""
    slowest = {
        # An arm from a checkout of another revision may not report all of them.
        name: [max(ranks) for ranks in zip(*(answer.get(name, []) for answer in answers), strict=True)]
        for name in ("step_times_s", "data_wait_s", "copy_s")
    }
    # Ranks that hold parts of one model see the same share of the batch.
    distinct = answers[:: len(answers) // replicas]
    loads = {
        name: [sum(ranks) for ranks in zip(*(answer[name] for answer in distinct), strict=True)]
        for name in ("samples", "tokens")
    }
    host_s = max(answer["host_s"] for answer in answers)
    losses = rank_means([answer["losses"] for answer in answers])
    of_ranks = [answer["step_times_s"] for answer in answers]
    return {**slowest, **loads, "losses": losses, "host_s": host_s, "of_ranks": of_ranks}


def add_window(measurement: Measurement, window: Message) -> None:
    """Add the window for telemetry."""
    measurement.sustained_step_times_s = window["step_times_s"]
    measurement.sustained_data_wait_s = window["data_wait_s"]
    measurement.sustained_copy_s = window["copy_s"]
    measurement.sustained_s = window["host_s"]
    measurement.sustained_samples = sum(window["samples"])
    measurement.sustained_tokens = sum(window["tokens"]) if window["tokens"] else None


def add_turn(measurement: Measurement, index: int, turn: Message) -> None:
    """Add the arm's turn in the round of this index."""
    measurement.round_index += [index] * len(turn["step_times_s"])
    measurement.round_step_times_s += turn["step_times_s"]
    measurement.round_samples += turn["samples"]
    measurement.round_tokens += turn["tokens"]
    measurement.round_data_wait_s += turn["data_wait_s"]
    measurement.round_copy_s += turn["copy_s"]
    measurement.round_host_times_s.append(turn["host_s"])


def add_peaks(measurement: Measurement, answers: Sequence[Message], *, is_cold: bool) -> None:
    """Add the peak memory and the compile time of the ranks; `is_cold`: nothing of theirs was cached."""
    for name in PEAKS:
        if name in answers[0]:
            setattr(measurement, name, sum(answer[name] for answer in answers))
    # On a CPU the allocator reports on the replay alone.
    on_device = "allocated_peak_bytes" in answers[0]
    measurement.peak_memory_bytes = (
        measurement.allocated_peak_bytes if on_device else sum(_own_growth(answer) for answer in answers)
    )
    measurement.compile_s = answers[0]["compile_s"]
    if measurement.compile_s is not None:
        measurement.compile_cache = "cold" if is_cold else "warm"


def add_allocated(measurement: Measurement, answers: Sequence[Message]) -> None:
    """Add the most that the ranks' tensors took at once, if a replay measured it; on a GPU the timed life did."""
    seen = [answer.pop("allocated_peak_bytes", None) for answer in answers]
    known = [peak for peak in seen if peak is not None]
    if len(known) == len(seen):
        measurement.allocated_peak_bytes = sum(known)


def rank_means(per_rank: Sequence[Sequence[Any]]) -> list[float]:
    return [statistics.fmean(values) for values in zip(*per_rank, strict=True)]


def _own_growth(peaks: Message) -> int:
    """Bytes by which a rank's resident set grew at its peak, without the pages of files."""
    growth: int = peaks["rss_peak_bytes"] - peaks["rss_start_bytes"] - peaks["rss_file_growth_bytes"]
    return growth
