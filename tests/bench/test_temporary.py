"""Folders of killed owners are removed by the next owner; those of live owners are not."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bench import temporary

HOLDS = """
import sys
from bench import temporary
with temporary.folder("held") as made:
    print(made, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_a_folder_is_there_as_long_as_its_owner() -> None:
    owner = subprocess.Popen([sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    held = Path(owner.stdout.readline().strip())
    (held / "work").mkdir()
    temporary.sweep()
    assert (held / "work").is_dir()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert held.is_dir()
    with temporary.folder("next") as made:
        assert made.is_dir() and not held.exists()
    assert not made.exists()
    owner.stdout.close()


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "trainpace-mine").mkdir()
    (tmp_path / "other" / temporary.OWNER).mkdir(parents=True)
    temporary.sweep()
    assert {item.name for item in tmp_path.iterdir()} == {"trainpace-mine", "other"}
