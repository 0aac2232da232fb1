"""The same faults tried on pytest-benchmark, pyperf and asv: `nox -s peers` prints the exit code of each.

Every case but the first has a head that must not pass: it is renamed or gone, does half the work, dies, computes NaN,
was measured far less often, or takes one and a half times as long while something keeps the base from showing it. Each
tool is configured, as its manual says, to fail if the head is 5 % slower.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

WORK = """
import math


def step(size=400_000, value=1.0):
    total = 0.0
    for index in range(size):
        total += math.sqrt(index) * value
    return total
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`call` is what the head measures instead of `step()`, and `name` is its name for that. `spoil` changes the base's
    stored times, as a disturbance or a defect would. `options` are passed to pytest and `pyperf_options` to pyperf when
    the head is measured."""

    title: str
    call: str = "step()"
    name: str = "training"
    spoil: Callable[[float], float] | None = None
    options: tuple[str, ...] = ()
    pyperf_options: tuple[str, ...] = ()


CASES = (
    Case(title="nothing wrong (control)"),
    Case(title="1.5 times as slow (control)", call="step(600_000)"),
    Case(title="renamed, and 1.5 times as slow", call="step(600_000)", name="training_v2"),
    Case(title="gone: another is measured in its place", call="step(1000)", name="loading"),
    Case(title="half the work", call="step(200_000)"),
    Case(title="dies in the middle", call="__import__('os')._exit(7)"),
    Case(
        title="one measurement of the head against many of the base",
        options=("--benchmark-min-rounds=1", "--benchmark-max-time=0", "--benchmark-warmup=off"),
        pyperf_options=("--processes=1", "--values=1"),
    ),
    Case(title="computes NaN", call="step(value=float('nan'))"),
    Case(title="1.5 times as slow, stored base is NaN", call="step(600_000)", spoil=lambda _: math.nan),
    Case(
        title="1.5 times as slow, base measured under load that doubled its times",
        call="step(600_000)",
        spoil=lambda time_s: 2 * time_s,
    ),
    Case(title="1.5 times as slow, tests in two processes (-n 2)", call="step(600_000)", options=("-n", "2")),
)


NOT_APPLICABLE = "does not apply"


def run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def spoilt(value: object, change: Callable[[float], float]) -> object:
    """A part of a stored result, with every number in it changed."""
    if isinstance(value, dict):
        return {name: spoilt(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [spoilt(item, change) for item in value]
    return change(value) if isinstance(value, float) else value


def pytest_benchmark(case: Case, folder: Path) -> str:
    """`--benchmark-compare-fail=median:5%` against a saved run."""

    def measure(call: str, name: str, *options: str) -> subprocess.CompletedProcess[str]:
        test = f"from work import step\n\n\ndef test_{name}(benchmark):\n    benchmark(lambda: {call})\n"
        (folder / "test_work.py").write_text(test)
        return run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, folder=folder)

    measure("step()", "training", "--benchmark-save=base")
    (stored,) = (folder / ".benchmarks").rglob("*_base.json")
    if case.spoil:
        data = json.loads(stored.read_text())
        data["benchmarks"][0]["stats"] = spoilt(data["benchmarks"][0]["stats"], case.spoil)
        stored.write_text(json.dumps(data))
    fail = ("--benchmark-compare=0001", "--benchmark-compare-fail=median:5%")
    return str(measure(case.call, case.name, *fail, *case.options).returncode)


def pyperf(case: Case, folder: Path) -> str:
    """`compare_to --min-speed=5`; a script sees only its exit code."""
    if case.options and not case.pyperf_options:
        return NOT_APPLICABLE

    def measure(call: str, name: str, file: str, *options: str) -> None:
        command = ("timeit", "--fast", *options, "--name", name, "-o", file, "-s", "from work import step", call)
        run(sys.executable, "-m", "pyperf", *command, folder=folder)

    measure("step()", "training", "base.json")
    measure(case.call, case.name, "head.json", *case.pyperf_options)
    if case.spoil:
        data = json.loads((folder / "base.json").read_text())
        for part in data["benchmarks"][0]["runs"]:
            if "values" in part:
                part["values"] = spoilt(part["values"], case.spoil)
        (folder / "base.json").write_text(json.dumps(data))
    done = run(sys.executable, "-m", "pyperf", "compare_to", "base.json", "head.json", "--min-speed=5", folder=folder)
    return str(done.returncode)


def asv(case: Case, folder: Path) -> str:
    """`continuous --factor 1.05` over two commits. It uses no stored base, so none can be spoilt."""
    if case.spoil or case.options:
        return NOT_APPLICABLE

    def commit(call: str, name: str) -> str:
        benchmark = f"from work import step\n\n\ndef time_{name}():\n    {call}\n"
        (folder / "benchmarks" / "bench.py").write_text(benchmark)
        git("add", "-A")
        git("commit", "-q", "--allow-empty", "-m", name)
        return git("rev-parse", "HEAD")

    def git(*words: str) -> str:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        return run("git", *identity, *words, folder=folder).stdout.strip()

    (folder / "benchmarks").mkdir()
    (folder / "benchmarks" / "__init__.py").touch()
    (folder / "setup.py").write_text("from setuptools import setup\nsetup(name='work', py_modules=['work'])\n")
    settings = {
        "version": 1,
        "project": "work",
        "repo": ".",
        "branches": ["main"],
        "environment_type": "virtualenv",
        "benchmark_dir": "benchmarks",
        "pythons": [f"{sys.version_info.major}.{sys.version_info.minor}"],
    }
    (folder / "asv.conf.json").write_text(json.dumps(settings))
    git("init", "-q", "-b", "main")
    base = commit("step()", "training")
    # Benchmarks come from the working tree, the code from each commit, so the change has to be in the code.
    if case.call != "step()":
        head_call = case.call.replace("step", "plain", 1)
        (folder / "work.py").write_text(
            WORK.replace("def step", "def plain") + f"\n\ndef step():\n    return {head_call}\n"
        )
    head = commit("step()", case.name)
    run(sys.executable, "-m", "asv", "machine", "--yes", folder=folder)
    done = run(sys.executable, "-m", "asv", "continuous", "--factor", "1.05", base, head, folder=folder)
    # It exits with 1 for a regression, and for much else that goes wrong.
    return str(done.returncode)


def main() -> None:
    tools = (pytest_benchmark, pyperf, asv)
    names = ", ".join(f"{name} {version(name)}" for name in ("pytest-benchmark", "pyperf", "asv"))
    print("# The same faults elsewhere\n")
    print(f"The output of `nox -s peers`: exit codes of {names}, each told to fail where the head is 5 % slower")
    print(
        "(`--benchmark-compare-fail=median:5%`, `compare_to --min-speed=5`, `continuous --factor 1.05`). 0 is a pass."
    )
    print("pyperf has no exit code for a slow-down at all; asv measures both commits anew with the head's benchmarks,")
    print("so that a renamed one is compared. What the gate says to faults of these kinds is in")
    print("[mutations.md](mutations.md).\n")
    print("| fault | " + " | ".join(tool.__name__.replace("_", "-") for tool in tools) + " |")
    print("| --- |" + " --- |" * len(tools))
    for case in CASES:
        cells = []
        for tool in tools:
            with tempfile.TemporaryDirectory(prefix="trainpace-peers-") as folder:
                (Path(folder) / "work.py").write_text(WORK)
                cells.append(tool(case, Path(folder)))
        print(f"| {case.title} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
