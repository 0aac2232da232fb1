"""Commands that need no torch do not wait for its import, and print no useless warnings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import catalogue
from bench.catalogue import Kind
from tests import ROOT
from tests.reports.synthetic import keep

WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name + " is slow to import")
sys.meta_path.insert(0, Blocked())
sys.argv = ["trainpace", *{arguments!r}]
from bench.cli.app import main
main()
"""
SLOW = ("torch", "transformers", "scipy", "pandas", "pyarrow", "matplotlib")


def without(blocked: tuple[str, ...], *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process in which importing any of these fails."""
    code = WITHOUT.format(blocked=blocked, arguments=list(map(str, arguments)))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    return keep(tmp_path_factory.mktemp("kept"))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--help",), 0, "Which training speed-up"),
        (("--version",), 0, "trainpace"),
        (("run", "--help"), 0, "Measure a plan"),
        (("gate", "--help"), 0, "Compare base and head"),
        (("list", "techniques"), 0, "amp_bf16"),
        (("list", "models"), 0, "gpt2/nano"),
        (("list", "plans"), 0, "quick"),
        (
            ("run", "--tecnique", "adam"),
            2,
            "--tecnique (Possible options: --recipe, --technique, --token-file)",
        ),
        (("run", "--batch", "many"), 2, "Invalid value for '--batch'"),
        (("compare",), 2, "Missing argument"),
        (("mesure",), 2, "No such command 'mesure'"),
        (("run", "fast"), 2, "plan 'fast' is unknown: give one of smoke, quick"),
        (("run", "--technique", "amp_bf61"), 2, "technique 'amp_bf61' is unknown: did you mean amp_bf16"),
        (("run", "--technique", "adam+adafactor"), 2, "'adafactor' and 'adam' exclude each other"),
        (("gate", "--head-technique", "amp_bf61"), 2, "technique 'amp_bf61' is unknown: did you mean amp_bf16"),
        (("run", "--resume", "x", "--batch", "4"), 2, "--resume takes its plan from the run"),
    ],
)
def test_help_lists_and_usage_errors_need_no_slow_package(arguments: tuple[str, ...], code: int, said: str) -> None:
    # The library that formats help is slow to import too, if less so.
    done = without(SLOW if code == 0 else (*SLOW, "rich"), *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    if code:
        assert done.stdout == "" and done.stderr.count("\n") == 1


def test_without_a_word_there_is_help() -> None:
    assert "Which training speed-up" in without(SLOW).stdout


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("compare", ()),
        ("report", ("--out",)),
        ("history", ("--reference", "gpt2/tiny", "--out")),
        ("export", ("--to", "csv", "--out")),
    ],
)
def test_what_was_kept_is_read_without_torch(
    command: str, options: tuple[str, ...], kept: Path, tmp_path: Path
) -> None:
    out = [tmp_path / "out"] if options and options[-1] == "--out" else []
    done = without(("torch", "transformers"), command, kept, *options, *out)
    assert done.returncode == 0, done.stderr


def test_the_machine_is_looked_at_without_torch() -> None:
    done = without(("torch", "transformers"), "doctor", "--machine")
    assert done.returncode == 0, done.stderr
    assert {"CPU", "memory", "GPU"} <= {line.split()[0] for line in done.stdout.splitlines()}


def test_the_catalogue_is_what_the_registry_says() -> None:
    anew = "write it anew: python -m bench.catalogue"
    kept = catalogue._kept()
    assert kept is not None, f"bench/catalogue.json is of other sources: {anew}"
    asked = "{kind: catalogue._registered(kind) for kind in catalogue.Kind}"
    code = f"import json; from bench import catalogue; print(json.dumps({asked}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert json.loads(done.stdout) == {kind: kept[kind] for kind in Kind}, f"bench/catalogue.json is of before: {anew}"


def test_a_catalogue_of_other_sources_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "SOURCES", (*catalogue.SOURCES, "spec.py"))
    catalogue._kept.cache_clear()
    assert catalogue._kept() is None
    catalogue._kept.cache_clear()


def test_libraries_that_do_not_load_here_are_not_told_of() -> None:
    code = "from harness.processes.quiet import quieten; quieten(); import torchao"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "Failed to load" not in done.stderr
