"""The page of techniques matches the registry."""

from __future__ import annotations

import subprocess
import sys

from tests import ROOT

PAGE = ROOT / "docs" / "techniques.md"


def test_the_page_is_what_the_command_prints() -> None:
    command = [sys.executable, "-m", "bench", "list", "techniques", "--markdown"]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert table.strip() in PAGE.read_text(), "run: trainpace list techniques --markdown, and put it into the page"
