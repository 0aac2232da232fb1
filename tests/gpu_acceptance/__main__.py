"""The options, the parts in order with their shares of the time, and the table, which is written after every row."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import tests.gpu_acceptance
from bench import __version__, plugins
from bench.corpus import write_atomically
from harness.preparation.prepared import TASK_TIMEOUT_S
from harness.processes.failures import ArmFailed, ForkServerFailed
from harness.telemetry.gpus import Gpus
from harness.telemetry.surroundings import git_state
from tests.gpu_acceptance import chip, commands, each, ladder, memory, truth
from tests.gpu_acceptance.rows import Row, exit_code, failed, markdown, not_run, plain
from tests.gpu_acceptance.stand import OutOfTime, Stand

BUDGET_S = 530.0

USAGE_ERROR = 2

OPTIONAL = {
    "torchao": "torchao",
    "peft": "peft",
    "pytorch_optimizer": "pytorch-optimizer",
    "torch_pruning": "torch-pruning",
    "liger_kernel": "liger-kernel",
}
"""Modules of packages that some techniques need, and what installs them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """`share` is its weight in the time left, relative to the parts still to come. With less than `least_s` left it is
    not started. A part that is worthless if cut short (`whole`) is not started if its share is less than that."""

    name: str
    run: Callable[[Stand], object]
    share: float
    least_s: float
    whole: bool = False


PARTS = (
    Part(name="doctor", run=chip.doctor, share=20, least_s=15),
    Part(name="smoke", run=commands.smoke, share=90, least_s=60),
    # Early, so that its share does not depend much on how long other parts took.
    Part(name="gate", run=commands.gate, share=300, least_s=commands.GATE_S, whole=True),
    Part(name="truth", run=truth.against_bare_loop, share=150, least_s=70),
    Part(name="telemetry", run=truth.telemetry, share=35, least_s=20),
    Part(name="energy", run=chip.energy, share=30, least_s=20),
    Part(name="rates", run=chip.rates, share=25, least_s=15),
    Part(name="ladder", run=ladder.ladder, share=120, least_s=60),
    Part(name="memory", run=memory.memory, share=50, least_s=20),
    Part(name="techniques", run=each.each, share=30, least_s=10),
)
"""The parts in order. What a part leaves of its share goes to the later ones."""

SMALL = 0.2
"""The factor on the least seconds if everything is small."""


class Table:
    """The rows so far. Each new row is shown on standard error, and the file, if any, is rewritten."""

    def __init__(self, head: Sequence[str], write: Callable[[Sequence[str], Sequence[Row]], str], out: Path | None):
        self.head, self.rows = head, list[Row]()
        self._write, self._out = write, out

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print(f"{row.verdict:7}  {row.what}: {row.seen}", file=sys.stderr, flush=True)
        if self._out is not None:
            write_atomically(self._out, lambda name: Path(name).write_text(self.text()))

    def text(self) -> str:
        return self._write(self.head, self.rows)


def main() -> int:
    options = _options()
    for file in options.plugin:
        plugins.load_file(file)
    table = Table([], markdown if options.markdown else plain, options.out)
    stand = Stand(
        device=options.device,
        tell=table.add,
        modules=[str(file.resolve()) for file in options.plugin],
        names=options.techniques,
    )
    end_s = time.monotonic() + options.budget
    try:
        if options.device == "cuda" and (reason := _why_no_gpu(stand)):
            print(f"no GPU that can be used: {reason}", file=sys.stderr)
            return USAGE_ERROR
        table.head = _head(stand)
        coming = [_scaled(part, stand) for part in PARTS if part.name in options.parts]
        while coming:
            run_part(coming[0], stand, granted_s(coming, end_s - time.monotonic()))
            del coming[0]
    finally:
        stand.close()
    print(table.text(), end="")
    return exit_code(table.rows)


def _why_no_gpu(stand: Stand) -> str | None:
    """Why torch cannot use a GPU; None if it can. A forked process tries it, because this one must not use a GPU."""
    try:
        reason: str | None = stand.fork_server().run("harness.telemetry.driver:why_unusable", {}, TASK_TIMEOUT_S)
    except ArmFailed as failure:
        return f"starting CUDA failed: {failure}"
    except ForkServerFailed:
        # This says nothing about the GPU: the head and every part will report it.
        stand.end_fork_server()
        return None
    return reason


def _scaled(part: Part, stand: Stand) -> Part:
    return dataclasses.replace(part, least_s=part.least_s * SMALL) if stand.is_small else part


def granted_s(coming: Sequence[Part], left_s: float) -> float | None:
    """How many of the seconds left the first of the coming parts gets; None if it is not started."""
    part = coming[0]
    share_s = left_s * part.share / sum(item.share for item in coming)
    if (share_s if part.whole else left_s) < part.least_s:
        return None
    return max(share_s, part.least_s)


def _options() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    def parts(text: str) -> list[str]:
        unknown = set(names(text)) - {part.name for part in PARTS}
        if unknown:
            known = ",".join(part.name for part in PARTS)
            raise argparse.ArgumentTypeError(f"part {sorted(unknown)[0]!r} is unknown: give some of {known}")
        return names(text)

    everything = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu_acceptance",
        description=tests.gpu_acceptance.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds for all parts [%(default)g]")
    parser.add_argument("--parts", type=parts, default=everything, help=f"some of {','.join(everything)}")
    parser.add_argument("--techniques", type=names, default=[], help="names to try in that part; default: all")
    parser.add_argument("--plugin", type=Path, action="append", default=[], help="a Python file with techniques")
    parser.add_argument("--markdown", action="store_true", help="as docs/gpu.md has it")
    parser.add_argument("--out", type=Path, help="a file to keep the table in, written anew after every row")
    # For the tests of this program: every part that can run on a CPU, in a small form.
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_part(part: Part, stand: Stand, limit_s: float | None) -> None:
    """Run the part within its time limit, None for none. However it ends, the next one starts, with its own arms."""
    if limit_s is None:
        needed = f"give it {part.least_s:.0f} s of its own, --parts {part.name}"
        stand.tell(not_run(part.name, f"no time left: {needed}"))
        return
    try:
        with stand.limited(limit_s):
            part.run(stand)
        return
    except OutOfTime:
        stand.tell(not_run(part.name, f"no time left: cut off after {limit_s:.0f} s, its share"))
    except Exception as error:
        stand.tell(failed(part.name, f"{type(error).__name__}: {' '.join(str(error).split())}"))
    stand.end_fork_server()


def _head(stand: Stand) -> list[str]:
    """The card, its driver, torch and the date, and what is not installed."""
    commit, dirty = git_state()
    revision = f" at {commit[:10]}{' and changes' if dirty else ''}" if commit else ""
    absent = [name for module, name in OPTIONAL.items() if importlib.util.find_spec(module) is None]
    try:
        card = stand.facts["device_name"]
    except Exception as error:
        card = f"unknown card ({error})"
        stand.end_fork_server()
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers")]
    return [
        f"{card}, driver {_driver(stand.device)}, {', '.join(versions)}, Python {sys.version.split()[0]}",
        f"trainpace {__version__}{revision}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"not installed: {', '.join(absent) or 'nothing that a technique needs'}",
    ]


def _driver(device: str) -> str:
    version, reason = Gpus(device, ()).driver()
    return version or f"unknown ({reason})"


if __name__ == "__main__":
    sys.exit(main())
