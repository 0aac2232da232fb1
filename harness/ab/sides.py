"""The two sides of a comparison, each with its interpreter, code and techniques; and a fork server for each.

What affects a program's speed without being part of it must not stay with one side: the hash seed, the size of the
environment and the length of the path to the code are drawn again for each fork server, so that a bias becomes spread.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import bench
from bench import temporary
from bench.spec import BASELINE
from harness.ab.checkout import Checkout
from harness.evidence.provenance import MEASURING, SOURCE_FOLDERS
from harness.message import Message
from harness.processes.failures import ForkServerFailed
from harness.processes.fork_server import ForkServer

PADDING_BYTES = 4096
"""The most by which the environment of a fork server is padded."""

SERVER = "harness/processes/serving.py"
"""The file that a trainpace must have for this one to start it."""

PATH_LETTERS = 120
"""The most by which the path to its code is lengthened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two sides: `name` is base or head. `slowdown` is added to every step, to see whether it is
    detected."""

    name: str
    python: str
    checkout: Checkout
    techniques: tuple[str, ...] = ()
    slowdown: float = 0.0

    @property
    def label(self) -> str:
        return "+".join(self.techniques) or BASELINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """A fork server of one side, and the paths under which its arms see the side's code."""

    side: Side
    fork_server: ForkServer
    checkout: Path
    links: tuple[str, ...]
    elsewhere: Path

    def wait_ready(self) -> None:
        """Block until everything is imported. Raises ForkServerFailed, naming the side, if an import fails."""
        try:
            self.fork_server.wait_ready()
        except ForkServerFailed as failure:
            raise ForkServerFailed(f"{self.side.name} ({self.side.python}): {failure}") from failure

    def whereabouts(self) -> Message:
        """What an arm needs to find out where its modules come from."""
        return {"checkout": str(self.checkout), "links": list(self.links), "elsewhere": str(self.elsewhere)}


@contextlib.contextmanager
def open_home(side: Side, elsewhere: Path, draw: random.Random, modules: Sequence[str] = ()) -> Iterator[Home]:
    """A fork server of the side, in its own surroundings. `elsewhere` is the folder that the gate was started in.

    Raises ValueError if the side's interpreter cannot be run.
    """
    with temporary.folder("side") as scratch:
        folder = scratch / ("x" * draw.randint(1, PATH_LETTERS))
        measuring, code = folder / "measuring", folder / "code"
        measuring.mkdir(parents=True)
        code.symlink_to(side.checkout.top)
        origin = measuring_code(side.checkout.top)
        for package in MEASURING:
            (measuring / package).symlink_to(origin / package)
        roots = [code / side.checkout.inside, *(code / source for source in SOURCE_FOLDERS)]
        paths = [measuring, *dict.fromkeys(root for root in roots if root.is_dir())]
        environment = {
            "PYTHONPATH": os.pathsep.join([*map(str, paths), *filter(None, [os.environ.get("PYTHONPATH")])]),
            # Otherwise the working folder would come before ours, with any package of its own named like one of ours.
            "PYTHONSAFEPATH": "1",
            "PYTHONHASHSEED": str(draw.randrange(2**32)),
            "TRAINPACE_PADDING": "x" * draw.randrange(PADDING_BYTES),
        }
        working = side.checkout.top / side.checkout.inside
        if not working.is_dir():
            raise ValueError(
                f"{side.name} has no folder {str(side.checkout.inside)!r}: start in a folder that both sides have"
            )
        is_ours = origin == side.checkout.top
        links = (str(code), *([str(measuring)] if is_ours else []))
        try:
            fork_server = ForkServer(
                python=side.python,
                modules=modules,
                environment=environment,
                folder=working,
            )
        except OSError as error:
            raise ValueError(
                f"{side.name} python {side.python!r} cannot be run: {error.strerror}; give the path of an interpreter"
            ) from error
        with fork_server:
            yield Home(side=side, fork_server=fork_server, checkout=side.checkout.top, links=links, elsewhere=elsewhere)


def measuring_code(top: Path) -> Path:
    """Where our own packages come from: both sides are measured by the code that runs here, unless the checkout is
    trainpace itself. Then its own code is what is compared.

    Raises ValueError for a trainpace that this one cannot start.
    """
    if not all((top / name).is_file() for name in ("bench/spec.py", "harness/record.py")):
        return Path(bench.__file__).resolve().parent.parent
    if not (top / SERVER).is_file():
        raise ValueError(f"the trainpace in {top} has no {SERVER}: compare it with a trainpace of the same age")
    return top
