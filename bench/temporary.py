"""Temporary folders that do not outlive their owners for long, however those end. Standard library only."""

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
"""A file in each folder that is locked as long as its owner lives: if the owner is killed, the kernel releases the
lock."""


@contextmanager
def folder(what: str) -> Iterator[Path]:
    """A fresh folder for as long as the context lasts. Folders whose owners were killed are removed first."""
    sweep()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{what}-") as name:
        made = Path(name)
        # The file has another name until it is locked, so that others who sweep meanwhile do not see it.
        with open(made / f"{OWNER}.new", "wb") as held:
            # If files cannot be locked, nothing is swept.
            with contextlib.suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_EX)
                os.rename(held.name, made / OWNER)
            yield made


def sweep() -> None:
    """Remove the folders whose owners are gone."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{OWNER}"):
        # Some are just being removed by their owners.
        with contextlib.suppress(OSError):
            found = owner.lstat()
            if found.st_uid == os.getuid() and stat.S_ISREG(found.st_mode):
                with open(owner, "rb") as held:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(owner.parent, ignore_errors=True)
