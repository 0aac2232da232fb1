"""Techniques, models and plans from third parties: from a file, and from an installed package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import plugins
from tests import ROOT, planted

EXAMPLE = ROOT / "examples" / "plugin.py"


def trainpace(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


def test_the_documented_example_is_short_and_whole() -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if line.strip()]
    assert len(lines) < 30


@pytest.mark.long
def test_the_example_is_listed_and_keeps_its_word() -> None:
    listed = trainpace("list", "techniques", "--plugin", str(EXAMPLE), "--json")
    found = [item for item in json.loads(listed.stdout) if item["name"] == "adadelta"]
    assert found[0]["caption"].startswith("Adadelta") and found[0]["changes"] == ["update rule"]
    checked = trainpace("check-technique", "adadelta", "--plugin", str(EXAMPLE), "--model", "wide/nano")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "adadelta+amp_bf16" in checked.stdout


@pytest.mark.long
def test_the_examples_plan_runs(tmp_path: Path, text_folder: Path) -> None:
    words = ("--repetitions", "1", "--corpus", str(text_folder), "--out", str(tmp_path))
    ran = trainpace("run", "mine", "--plugin", str(EXAMPLE), *words)
    assert ran.returncode == 0, ran.stderr
    assert "adadelta" in ran.stdout and "wide/nano" in ran.stdout


@pytest.mark.long
def test_a_technique_that_breaks_its_word_fails_the_check() -> None:
    checked = trainpace("check-technique", "planted_half_batch", "--plugin", str(planted.__file__))
    assert checked.returncode == 1
    assert "samples an update" in checked.stdout
    assert "failed its checks" in checked.stderr


@pytest.mark.long
def test_an_installed_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    """The package is as pip would install it: a module, and the metadata that names it."""
    (tmp_path / "own_techniques.py").write_text(EXAMPLE.read_text())
    metadata = tmp_path / "own_techniques-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: own-techniques\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[trainpace.techniques]\nown = own_techniques\n")
    listed = trainpace("list", "techniques", PYTHONPATH=str(tmp_path))
    assert "adadelta" in listed.stdout
    (tmp_path / "own_techniques.py").write_text("import no_such_module\n")
    broken = trainpace("list", "techniques", PYTHONPATH=str(tmp_path))
    assert broken.returncode == 2
    assert "own-techniques" in broken.stderr and "no_such_module" in broken.stderr


@pytest.mark.parametrize(
    ("content", "told"), [(None, "does not exist"), ("import no_such_module", "No module named 'no_such_module'")]
)
def test_a_bad_file_is_named(tmp_path: Path, content: str | None, told: str) -> None:
    file = tmp_path / "mine.py"
    if content:
        file.write_text(content)
    with pytest.raises(ValueError, match=rf"plugin file .*mine\.py.*{told}"):
        plugins.load_file(file)


def test_a_file_that_is_imported_by_name_already_is_not_imported_again() -> None:
    assert plugins.load_file(ROOT / "tests" / "planted.py") is planted
