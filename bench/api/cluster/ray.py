"""Heats on a Ray cluster. Ray places and restarts them, and reports lost ones. Each machine gets one heat at a time."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from bench.api.cluster.heats import Engine, Lost, Measured, Task, measure_here

LOOK_S = 2.0
"""Seconds for which a new machine may go unnoticed."""

ATTEMPTS = 3
"""How often a heat is tried if its machine is lost."""


def engine(address: str) -> Engine:
    """An engine on the Ray cluster at this address, or "auto". Raises ValueError if there is none, or if it has no
    machine to measure on."""
    if not _idle(_connected(address), set()):
        raise ValueError(f"the Ray cluster at {address!r} has no machine with a core: start workers with ray start")
    return partial(_over, address)


def _over(address: str, tasks: Sequence[Task]) -> Iterator[tuple[int, Measured | Lost]]:
    ray = _connected(address)
    waiting, attempts = deque(range(len(tasks))), Counter[int]()
    running: dict[Any, tuple[int, str]] = {}
    try:
        while waiting or running:
            for node in _idle(ray, {name for _, name in running.values()}):
                if waiting:
                    index = waiting.popleft()
                    attempts[index] += 1
                    running[_sent(ray, node, tasks[index])] = (index, node["NodeID"])
            if not running:
                # All machines are gone; others may come.
                time.sleep(LOOK_S)
                continue
            done, _ = ray.wait(list(running), timeout=LOOK_S)
            for reference in done:
                index, _ = running.pop(reference)
                try:
                    yield index, ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    yield index, Lost(reason=str(error.cause))
                except ray.exceptions.RayError as error:
                    if attempts[index] < ATTEMPTS:
                        waiting.append(index)
                    else:
                        said = str(error).strip().splitlines()[0]
                        yield index, Lost(reason=f"its machine was lost {ATTEMPTS} times, the last time with: {said}")
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        ray.shutdown()


def _connected(address: str) -> Any:
    try:
        import ray
    except ModuleNotFoundError:
        raise ValueError("--on a Ray cluster needs ray: pip install trainpace[ray]") from None
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, ignore_reinit_error=True)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address == "auto":
            raise ValueError(
                "no Ray cluster runs on this machine: start one with `ray start --head`, or give --on ray://HOST:PORT"
            ) from None
        said = str(error).strip().splitlines()[0]
        raise ValueError(f"no Ray cluster answers at {address!r} ({said}): give the ray://HOST:PORT of one") from None
    return ray


def _idle(ray: Any, busy: set[str]) -> list[dict[str, Any]]:
    """The machines without a heat. A heat takes a whole machine, never only some of its cores."""
    return [
        node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in busy and node["Resources"].get("CPU")
    ]


def _sent(ray: Any, node: dict[str, Any], task: Task) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    whole = {"num_cpus": node["Resources"]["CPU"], "num_gpus": node["Resources"].get("GPU", 0)}
    return ray.remote(measure_here).options(scheduling_strategy=here, max_retries=0, **whole).remote(task)
