"""The files in examples/ are valid: their shell commands can be parsed, and every option exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import typer

from bench.cli.app import app
from tests import ROOT

EXAMPLES = ROOT / "examples"
WITH_COMMANDS = (*(EXAMPLES / name for name in ("hosts.sbatch", "hosts-job.yaml")), ROOT / "docs" / "hosts.md")


def test_the_slurm_script_can_be_parsed() -> None:
    subprocess.run(["bash", "-n", str(EXAMPLES / "hosts.sbatch")], check=True)


@pytest.mark.parametrize("file", WITH_COMMANDS, ids=lambda file: file.name)
def test_every_option_is_one(file: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group
    found = re.findall(r"trainpace (run|join)\b([^\n#`]*)", file.read_text(encoding="utf-8"))
    assert {name for name, _ in found} == {"run", "join"}
    for name, words in found:
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", words)) <= known, words


def test_the_container_pins_what_the_project_pins() -> None:
    text = (EXAMPLES / "Containerfile").read_text(encoding="utf-8")
    assert "--constraint constraints.txt" in text and "grep '^torch==' constraints.txt" in text
    assert any(line.startswith("torch==") for line in (ROOT / "constraints.txt").read_text().splitlines())
