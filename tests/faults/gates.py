"""A gate that is killed, and what it leaves behind for the next."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import temporary
from tests import ROOT
from tests.faults import Ground, fault

CHECKS_OUT = """
import sys
from bench.api.gates import checkouts
with checkouts(["HEAD", "HEAD"], None) as found:
    print(*(item.top for item in found), flush=True)
    sys.stdin.read()
"""


@fault("gates", "SIGKILL while revisions are checked out", quick=True)
def killed(ground: Ground) -> str:
    repository, place = ground.folder / "repository", ground.folder / "temporary"
    place.mkdir()
    subprocess.run(["git", "init", "--quiet", repository], check=True)
    (repository / "train.py").write_text("print('trains')\n", encoding="utf-8")
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    subprocess.run(["git", "add", "."], cwd=repository, check=True)
    subprocess.run(["git", *who, "commit", "--quiet", "-m", "first"], cwd=repository, check=True)
    surroundings = os.environ | {"TMPDIR": str(place), "PYTHONPATH": str(ROOT)}
    left: list[Path] = []
    for kills in (True, False):
        gate = subprocess.Popen(
            [sys.executable, "-c", CHECKS_OUT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=repository,
            env=surroundings,
        )
        assert gate.stdout is not None and gate.stdin is not None
        tops = [Path(name) for name in gate.stdout.readline().split()]
        assert len(tops) == 2 and all((top / "train.py").exists() for top in tops)
        if kills:
            gate.kill()
            left = tops
        else:
            assert not any(top.exists() for top in left), "the next gate sweeps"
            gate.stdin.close()
        gate.wait(60)
        gate.stdout.close()
    assert not any(place.iterdir()), list(place.iterdir())
    listed = subprocess.run(["git", "worktree", "list"], cwd=repository, capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 1, listed.stdout
    assert temporary.PREFIX in str(left[0]) and tempfile.gettempdir() not in map(str, left)
    return "its two worktrees and its folder are removed by the next gate, from the disk and from git's list"
