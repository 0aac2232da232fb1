"""Temporary folders that do not outlive whoever made them for long, however that ended. Standard library only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "trainpace-"
OWNER = ".owner"
"""A file in each that is locked for as long as its owner lives: the kernel lets go of it when that is killed."""


@contextmanager
def folder(what: str) -> Iterator[Path]:
    """A fresh folder for as long as the context lasts. What earlier owners were killed in is removed first."""
    sweep()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{what}-") as name:
        made = Path(name)
        # Under another name until it is locked: whoever sweeps meanwhile sees none.
        with open(made / f"{OWNER}.new", "wb") as held:
            # Where files cannot be locked, nobody sweeps.
            with contextlib.suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_EX)
                os.rename(held.name, made / OWNER)
            yield made


def sweep() -> None:
    """Remove the folders of owners that are no more."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{OWNER}"):
        # Some are being removed by themselves.
        with contextlib.suppress(OSError):
            found = owner.lstat()
            if found.st_uid == os.getuid() and stat.S_ISREG(found.st_mode):
                with open(owner, "rb") as held:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(owner.parent, ignore_errors=True)
