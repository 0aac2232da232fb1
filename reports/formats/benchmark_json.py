"""pytest-benchmark's JSON, as read by `pytest-benchmark compare` and by plotting tools.

The statistics have the names and definitions of pytest-benchmark: outliers lie beyond one standard deviation, or 1.5
interquartile ranges beyond the quartiles.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import psutil

from bench import __version__
from harness.telemetry.surroundings import git_state
from harness.timing.stopwatch import Timing
from reports.wording import quantity

FORMAT_VERSION = "5.0.0"
"""The release of pytest-benchmark whose format this is."""


def benchmark(timing: Timing, *, name: str, fullname: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
    """One entry of `benchmarks`. Times are in seconds; a round is one step."""
    return {
        "group": None,
        "name": name,
        "fullname": fullname,
        "params": {key: str(value) for key, value in params.items()} if params else None,
        "param": "-".join(map(str, params.values())) if params else None,
        "extra_info": {
            "device": timing.device,
            "first_step_s": timing.first_step_s,
            "warmup_steps": len(timing.warmup_step_times_s),
            "steady": timing.steady,
        },
        "options": {
            "disable_gc": False,
            "timer": "perf_counter" if timing.device == "cpu" else "device_events",
            "min_rounds": 5,
            "max_time": None,
            "min_time": None,
            "warmup": True,
        },
        "stats": stats(timing.step_times_s),
    }


def stats(times_s: Sequence[float]) -> dict[str, Any]:
    """The statistics of at least one time."""
    data = sorted(times_s)
    mean, median = statistics.fmean(data), statistics.median(data)
    stddev = statistics.stdev(data) if len(data) > 1 else 0.0
    q1, q3 = _lower_quartile(data), -_lower_quartile([-time_s for time_s in reversed(data)])
    iqr = q3 - q1
    beyond = sum(time_s < q1 - 1.5 * iqr or time_s > q3 + 1.5 * iqr for time_s in data)
    far = sum(abs(time_s - mean) > stddev for time_s in data)
    return {
        "min": data[0],
        "max": data[-1],
        "mean": mean,
        "stddev": stddev,
        "rounds": len(data),
        "median": median,
        "iqr": iqr,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": beyond,
        "stddev_outliers": far,
        "outliers": f"{far};{beyond}",
        "ld15iqr": next(time_s for time_s in data if time_s >= q1 - 1.5 * iqr),
        "hd15iqr": next(time_s for time_s in reversed(data) if time_s <= q3 + 1.5 * iqr),
        "ops": 1 / mean,
        "total": sum(data),
        "data": list(times_s),
        "iterations": 1,
    }


def _lower_quartile(data: Sequence[float]) -> float:
    """The mean of the medians of the lower half with and without the median; a single value is its own quartile."""
    without, included = data[: len(data) // 2] or data, data[: (len(data) + 1) // 2]
    return (statistics.median(without) + statistics.median(included)) / 2


def document(benchmarks: Sequence[Mapping[str, Any]], now: datetime) -> dict[str, Any]:
    """The whole file."""
    commit, dirty = git_state()
    return {
        "machine_info": {
            "node": platform.node(),
            "processor": platform.processor(),
            "machine": platform.machine(),
            "python_compiler": platform.python_compiler(),
            "python_implementation": platform.python_implementation(),
            "python_implementation_version": platform.python_version(),
            "python_version": platform.python_version(),
            "python_build": list(platform.python_build()),
            "release": platform.release(),
            "system": platform.system(),
            "cpu": {"count": psutil.cpu_count()},
        },
        "commit_info": {"id": commit or "unversioned", "dirty": bool(dirty), "project": "trainpace"},
        "benchmarks": list(benchmarks),
        "datetime": now.isoformat(),
        "version": FORMAT_VERSION,
        "trainpace_version": __version__,
    }


def rows(benchmarks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows for the terminal."""
    return [
        {
            "test": item["fullname"],
            "median step": quantity.duration(item["stats"]["median"]),
            "quartiles": f"{quantity.duration(item['stats']['q1'])} to {quantity.duration(item['stats']['q3'])}",
            "steps": item["stats"]["rounds"],
            "first step": quantity.duration(item["extra_info"]["first_step_s"]),
            "steady": "yes" if item["extra_info"]["steady"] else "no",
        }
        for item in benchmarks
    ]
