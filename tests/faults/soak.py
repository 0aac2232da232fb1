"""Five hundred arms, one after another: the fork server is in the same state at the end as at the beginning."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

import psutil

from bench.corpus import open_corpus
from bench.spec import WorkloadSpec
from tests.faults import Ground, fault

ARMS = 500
ENDS = 25
"""The number of arms at the beginning and at the end that are compared."""

FLAT_BYTES = 20 << 20
TIMEOUT_S = 60.0


def _seen(process: psutil.Process) -> dict[str, int]:
    return {"rss": process.memory_info().rss, "descriptors": process.num_fds(), "threads": process.num_threads()}


@fault("soak", f"{ARMS} arms from one fork server")
def many_arms(ground: Ground) -> str:
    spec = WorkloadSpec(model="gpt2/nano", batch=2, sequence=16, corpus=str(ground.text))
    request: dict[str, Any] = {
        "workload": dataclasses.asdict(spec),
        "corpus": open_corpus(*spec.source).as_message(),
        "device": "cpu",
        "techniques": [],
        "replicas": 1,
        "seed": 0,
    }
    here, server = psutil.Process(), psutil.Process(ground.fork_server.pid)
    starts_s, seen = [], []
    for _ in range(ARMS):
        begun_s = time.perf_counter()
        arm = ground.fork_server.fork(request)
        arm.call({"do": "build"}, TIMEOUT_S)
        arm.call({"do": "steps", "with": {"count": 1}}, TIMEOUT_S)
        starts_s.append(time.perf_counter() - begun_s)
        arm.kill()
        seen.append((_seen(here), _seen(server), len(here.children(recursive=True))))
    first, last = seen[ENDS], seen[-1]
    grown = [after["rss"] - before["rss"] for before, after in zip(first[:2], last[:2], strict=True)]
    assert max(grown) < FLAT_BYTES, grown
    for name in ("descriptors", "threads"):
        assert [side[name] for side in first[:2]] == [side[name] for side in last[:2]], name
    assert first[2] == last[2]
    ratio = statistics.median(starts_s[-ENDS:]) / statistics.median(starts_s[:ENDS])
    return (
        f"memory grew by {grown[0] / 1e6:.1f} MB here and {grown[1] / 1e6:.1f} MB in the fork server; as many "
        f"descriptors, threads and processes; the last {ENDS} started in {ratio:.2f} of the time of the first"
    )
