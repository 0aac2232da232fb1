"""Measure the speed-up over hosts against the bandwidth between them: docs/hosts-measured.md.

    python -m tests.hosts_page          # measure, which needs root, and render
    python -m tests.hosts_page --render

The hosts are network namespaces on this machine (tests.networks), with one rank of one thread each. All links are
limited to one bandwidth after another. A step should take as long as over unlimited links, plus the time that the
gradients take over the link: each rank sends 2 (n - 1) / n of their bytes. None of that is hidden, because all
gradients of so small a model travel together, once the last of them is ready.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.corpus import open_corpus
from bench.spec import WorkloadSpec
from harness.hosts import wire
from harness.hosts.leader import Leader, Listening
from harness.processes.fork_server import ForkServer
from reports.text import listing
from tests import ROOT
from tests.networks import Network

FILE = ROOT / "docs" / "hosts" / "bandwidth.json"
PAGE = ROOT / "docs" / "hosts-measured.md"

HOSTS = (2, 4)
MEGABITS = (None, 1000, 300, 100, 30, 10)
PORT, TIMEOUT_S = 29500, 120.0
WARM, TIMED = 4, 12

HEAD = """\
# Speed-up over hosts against bandwidth

`gpt2/nano` at the same global batch over 2 and 4 hosts, whose links to each other are slowed. The hosts are network
namespaces of one machine with two cores, with one rank of one thread each; four of them share the two cores. *Expected*
is the step over links that are not slowed, and 2 (n - 1) / n of the gradients' bytes over the link's bandwidth.

```
python -m tests.hosts_page
```"""


def measure() -> list[dict[str, Any]]:
    """A row for each number of hosts and bandwidth."""
    rows: list[dict[str, Any]] = []
    for hosts in HOSTS:
        with (
            Network(hosts) as network,
            tempfile.TemporaryDirectory(prefix="trainpace-hosts-") as folder,
            _joined(network, hosts, Path(folder)),
        ):
            rows += _led(network, hosts, Path(folder))
    return rows


@contextmanager
def _joined(network: Network, hosts: int, folder: Path) -> Iterator[None]:
    """Let all other hosts wait to join the first one."""
    wire.token(folder / "token", make=True)
    started = [
        network.start(
            host,
            [sys.executable, "-m", "bench", "join", f"{network.address(1)}:{PORT}", "--token-file", "token"],
            folder=folder,
            environment={"OMP_NUM_THREADS": "1"},
        )
        for host in range(2, hosts + 1)
    ]
    try:
        yield
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _led(network: Network, hosts: int, folder: Path) -> list[dict[str, Any]]:
    """Run this program on the first host to measure, and limit the links when it asks for that."""
    with subprocess.Popen(
        ["ip", "netns", "exec", network.name(1), sys.executable, "-m", "tests.hosts_page", "--lead", str(hosts),
         network.address(1), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as leader:  # fmt: skip
        assert leader.stdin and leader.stdout
        rows: list[dict[str, Any]] = []
        for megabits in MEGABITS:
            for host in range(1, hosts + 1) if megabits else ():
                network.shape(host, megabits or 0)
            leader.stdin.write("go\n")
            leader.stdin.flush()
            row = json.loads(leader.stdout.readline()) | {"hosts": hosts, "megabits": megabits}
            print(row, flush=True)
            rows.append(row)
        leader.stdin.close()
    return rows


def lead(hosts: int, address: str, folder: Path) -> None:
    """On the first host: for each line read, measure the step time of one rank, and of one rank on each host."""
    listening = Listening(others=hosts - 1, address=(address, PORT), token_file=folder / "token")
    with Leader(listening) as leader:
        for _ in sys.stdin:
            plain_s, parameters = _step_s(leader, 1)
            spread_s, _ = _step_s(leader, hosts)
            told = {"one_rank_s": plain_s, "step_s": spread_s, "gradient_bytes": 4 * parameters}
            print(json.dumps(told), flush=True)


def _step_s(fork_server: ForkServer, ranks: int) -> tuple[float, int]:
    """The mean step time, and the number of parameters."""
    spec = WorkloadSpec(model="gpt2/nano", batch=16)
    arm = fork_server.fork(
        {
            "workload": dataclasses.asdict(spec),
            "corpus": open_corpus(*spec.source).as_message(),
            "device": "cpu",
            "techniques": [f"ddp_{ranks}"] if ranks > 1 else [],
            "replicas": ranks,
            "seed": 0,
        },
        ranks,
    )
    try:
        arm.call({"do": "build"}, TIMEOUT_S)
        arm.call({"do": "steps", "with": {"count": WARM}}, TIMEOUT_S)
        told = arm.call({"do": "steps", "with": {"count": TIMED}}, TIMEOUT_S)
        facts = arm.call({"do": "certify", "with": {"replay_steps": 0}}, TIMEOUT_S)
    finally:
        arm.kill()
    parameters = sum(int(seen[0]) for seen in facts[0]["parameters"].values())
    slowest_s = [max(ranks) for ranks in zip(*(answer["step_times_s"] for answer in told), strict=True)]
    return statistics.fmean(slowest_s), parameters


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The page with the table."""
    free_s = {row["hosts"]: row["step_s"] for row in rows if row["megabits"] is None}
    return f"{HEAD}\n\n{listing.markdown([_shown(row, free_s[row['hosts']]) for row in rows])}\n"


def _shown(row: dict[str, Any], free_s: float) -> dict[str, str]:
    sent = 2 * (row["hosts"] - 1) / row["hosts"] * row["gradient_bytes"]
    expected_s = free_s + (8 * sent / (1e6 * row["megabits"]) if row["megabits"] else 0.0)
    return {
        "hosts": str(row["hosts"]),
        "link": f"{row['megabits']} Mbit/s" if row["megabits"] else "not slowed",
        "step": f"{1e3 * row['step_s']:.3g} ms",
        "expected": f"{1e3 * expected_s:.3g} ms",
        "step / expected": f"{row['step_s'] / expected_s:.2f}",
        "speed-up over one rank": f"{row['one_rank_s'] / row['step_s']:.2f}x",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="Render what is kept.")
    parser.add_argument("--lead", nargs=3, metavar=("HOSTS", "ADDRESS", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.lead:
        lead(int(asked.lead[0]), asked.lead[1], Path(asked.lead[2]))
        return
    if not asked.render:
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(FILE.read_text(encoding="utf-8"))), encoding="utf-8")
    print(f"rendered {PAGE}")


if __name__ == "__main__":
    main()
