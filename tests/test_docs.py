"""The files and commands that the documentation shows to users are written and run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.cli.app import app
from bench.spec import Phase, parse_composition
from harness.preparation import fitting, pacing
from harness.preparation import forecast as forecasting
from harness.record import Record, Status
from tests import ROOT, before, day_page, exhaustive, many, worth_page
from tests.conftest import LEAST

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"# (\w+\.py)\n")


@dataclass(frozen=True)
class Example:
    """Files to write, and the command lines that follow them."""

    files: dict[str, str]
    commands: list[str]

    @property
    def name(self) -> str:
        return "+".join(self.files)


def examples(document: str) -> list[Example]:
    """Each Python block that begins with its file's name, with the commands of the next block."""
    found: list[Example] = []
    for language, text in BLOCK.findall((ROOT / document).read_text(encoding="utf-8")):
        named = NAMED.match(text)
        if language == "python" and named:
            found.append(Example({named[1]: text}, []))
        elif language == "" and found and any(name in text for name in found[-1].files):
            found[-1].commands.extend(text.splitlines())
    return found


EXAMPLES = [(document, example) for document in ("README.md", "docs/your-own.md") for example in examples(document)]


def test_no_example_is_passed_over() -> None:
    text = (ROOT / "docs/your-own.md").read_text(encoding="utf-8")
    found = [document for document, _ in EXAMPLES]
    assert found.count("docs/your-own.md") == text.count("\n```python\n") > 0
    assert "README.md" in found


@pytest.mark.parametrize(
    ("document", "example"),
    [
        pytest.param(*found, id=f"{found[0]}-{found[1].name}", marks=[pytest.mark.long] * (found[0] != "README.md"))
        for found in EXAMPLES
    ],
)
def test_an_example_runs_as_it_is(
    document: str,
    example: Example,
    sweep: Callable[..., tuple[Any, list[Record]]],
    tmp_path: Path,
) -> None:
    for name, text in example.files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert example.commands, document
    for line in example.commands:
        words = shlex.split(line)
        if words[0] == "python":
            subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, check=True)
            continue
        assert words[:2] == ["trainpace", "run"], line
        pairs = list(zip(words[2::2], words[3::2], strict=True))
        techniques = [parse_composition(value) for name, value in pairs if name == "--technique"]
        options = dict(pairs)
        model = options.pop("--model")
        phase = Phase(options.pop("--phase", "pretrain"))
        shape: dict[str, Any] = {
            name.removeprefix("--").replace("-", "_"): value
            for name, value in options.items()
            if name in ("--text-column", "--label-column")
        }
        if "--sequence" in options:
            shape["sequence"] = int(options["--sequence"])
        data = {"corpus": str(tmp_path / options["--data"])} if "--data" in options else {}
        if ".py:" in model:
            model = str(tmp_path / model)
        _, records = sweep(*techniques, models=(model,), shape=shape, phase=phase, protocol=LEAST, **data)
        assert {record.status for record in records} == {Status.OK}, [record.reason for record in records]


def commands(document: str) -> list[list[str]]:
    """The lines in blocks without a language that call trainpace, except on the files of an example."""
    blocks = BLOCK.findall((ROOT / document).read_text(encoding="utf-8"))
    lines = [line for language, text in blocks if not language for line in text.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [item for item in words if item[:1] == ["trainpace"] and not any(".py:" in word for word in item)]


@pytest.mark.parametrize("words", commands("README.md"), ids=" ".join)
def test_a_command_is_understood(words: list[str], lent: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # The memory of the published sizes is not predicted here.
    monkeypatch.setattr(forecasting, "forecast", lambda prepared, fork_server: forecasting.NONE)
    monkeypatch.setattr(pacing, "paces_of", lambda *_: {})
    monkeypatch.setattr(fitting, "fit", lambda *_: [])
    monkeypatch.setattr("bench.api.tuning.forecast", lambda prepared, fork_server: forecasting.NONE)
    asked = words[1:] + (["--dry-run"] if words[1] in ("run", "tune", "worth", "day") else [])
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output


def test_the_page_of_what_was_predicted_is_what_was_kept() -> None:
    assert before.PAGE.read_text(encoding="utf-8") == before.page(before.kept())


@pytest.mark.parametrize("program", [day_page, exhaustive, many, worth_page])
def test_a_page_is_what_was_kept(program: Any) -> None:
    assert program.PAGE.read_text(encoding="utf-8") == program.page()
