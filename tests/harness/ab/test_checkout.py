"""Revisions in folders of their own, and which side's code an arm has run."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from harness.ab.checkout import here, worktree
from harness.ab.sides import Side, measuring_code, open_home
from harness.evidence.provenance import provenance
from harness.processes.failures import ForkServerFailed
from tests import ROOT

PROBE = ROOT / "tests" / "probe.py"


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two revisions of a repository with a package; it is also this process's working directory."""
    folder = tmp_path / "repository"
    (folder / "src" / "mine").mkdir(parents=True)
    (folder / "work").mkdir()
    (folder / "work" / "probe.py").write_text(PROBE.read_text())
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.email", "a@example.org")
    git(folder, "config", "user.name", "A")
    for text in ("NUMBER = 1", "NUMBER = 2"):
        (folder / "src" / "mine" / "__init__.py").write_text(text + "\n")
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", text)
    monkeypatch.chdir(folder / "work")
    return folder


def test_a_revision_is_checked_out_and_taken_away_again(repository: Path, tmp_path: Path) -> None:
    with worktree("main~1", tmp_path / "old", "echo made > made") as found:
        assert (found.top / "src" / "mine" / "__init__.py").read_text() == "NUMBER = 1\n"
        assert (found.top / "made").read_text() == "made\n"
        assert found.inside == Path("work") and not found.dirty
        assert found.commit == git(repository, "rev-parse", "main~1")
    assert not (tmp_path / "old").exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_the_working_tree_says_what_it_is(repository: Path) -> None:
    assert here().describe() == git(repository, "rev-parse", "HEAD")[:10]
    (repository / "new.py").touch()
    assert here().dirty and "not committed" in here().describe()
    assert (here().top, here().inside) == (repository.resolve(), Path("work"))


def test_what_is_no_revision_or_no_repository_is_refused(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ref in ("nowhere", "--all"):
        with pytest.raises(ValueError, match=r"is unknown here.*main"), worktree(ref, tmp_path / "x", None):
            pass
    with (
        pytest.raises(ValueError, match=r"--setup 'exit 3' failed on main"),
        worktree("main", tmp_path / "y", "exit 3"),
    ):
        pass
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(ValueError, match=r"git rev-parse failed: .*not a git repository"),
        worktree("main", tmp_path / "z", None),
    ):
        pass


@pytest.mark.long
def test_each_side_has_the_code_of_its_own_revision_and_surroundings_of_its_own(
    repository: Path, tmp_path: Path
) -> None:
    draw, surroundings = random.Random(1), []
    with worktree("main~1", tmp_path / "old", None) as old:
        sides = [Side(name=name, python=sys.executable, checkout=at) for name, at in (("base", old), ("head", here()))]
        for side, number in zip(sides, (1, 2), strict=True):
            with open_home(side, repository, draw) as home:
                found = home.fork_server.run("probe:imported", {"whereabouts": home.whereabouts()}, 60)
                assert found["number"] == number
                assert found["modules"] == 2 and found["strays"] == []
                assert Path(found["folder"]).name == "work"
                surroundings.append(home.fork_server.run("probe:surroundings", {}, 60))
    one, other = surroundings
    assert one["hash_seed"] != other["hash_seed"]
    assert one["environment_bytes"] != other["environment_bytes"]
    assert len(one["path"]) != len(other["path"])
    assert len(one["file"]) != len(other["file"])


def test_an_interpreter_that_cannot_measure_says_what_it_lacks(repository: Path, tmp_path: Path) -> None:
    side = Side(name="head", python=str(tmp_path / "python"), checkout=here())
    with (
        pytest.raises(ValueError, match=r"head python .* cannot be run"),
        open_home(side, repository, random.Random(3)),
    ):
        pass
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    with (
        open_home(Side(name="head", python=str(bare), checkout=here()), repository, random.Random(4)) as home,
        pytest.raises(ForkServerFailed, match="No module named"),
    ):
        home.fork_server.wait_ready()


def test_code_that_hides_the_checkouts_own_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editable installation of the repository in which the gate was started does this."""
    origin, checkout = tmp_path / "origin", tmp_path / "checkout"
    for folder in (origin, checkout):
        (folder / "lib").mkdir(parents=True)
        (folder / "lib" / "hidden_one.py").touch()
    monkeypatch.syspath_prepend(str(origin / "lib"))
    import hidden_one  # type: ignore[import-not-found]  # noqa: F401

    found = provenance(str(checkout), [], str(origin))
    assert found["strays"] == [f"hidden_one from {origin / 'lib' / 'hidden_one.py'}"]
    assert provenance(str(origin), [], str(origin)) == {"modules": 1, "strays": []}


def test_an_installed_package_that_hides_the_checkouts_own_is_named(tmp_path: Path) -> None:
    # A package of that name elsewhere in the repository is not one that a side would import.
    (tmp_path / "backends" / "pytest").mkdir(parents=True)
    (tmp_path / "backends" / "pytest" / "__init__.py").touch()
    assert provenance(str(tmp_path), [], str(tmp_path))["strays"] == []
    (tmp_path / "src" / "pytest").mkdir(parents=True)
    (tmp_path / "src" / "pytest" / "__init__.py").touch()
    (stray,) = provenance(str(tmp_path), [], str(tmp_path))["strays"]
    assert stray.startswith("pytest from ")


def test_a_package_that_was_installed_from_the_repository_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed package: the module, and next to it a note of where it came from."""
    site, repository = tmp_path / "site-packages", tmp_path / "repository"
    (site / "deep_one-1.dist-info").mkdir(parents=True)
    (site / "deep_one.py").touch()
    (site / "deep_one-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: deep-one\nVersion: 1\n")
    (site / "deep_one-1.dist-info" / "RECORD").write_text("deep_one.py,,\n")
    url = {"url": (repository / "packages" / "core").as_uri(), "dir_info": {}}
    (site / "deep_one-1.dist-info" / "direct_url.json").write_text(json.dumps(url))
    monkeypatch.syspath_prepend(str(site))
    import deep_one  # type: ignore[import-not-found]  # noqa: F401

    (stray,) = provenance(str(tmp_path / "checkout"), [], str(repository))["strays"]
    assert stray == f"deep_one from {site / 'deep_one.py'}"


def test_trainpaces_own_checkout_measures_with_its_own_code(tmp_path: Path) -> None:
    assert measuring_code(ROOT) == ROOT
    assert measuring_code(tmp_path) == ROOT


def test_a_trainpace_of_another_layout_is_refused(tmp_path: Path) -> None:
    for name in ("bench/spec.py", "harness/record.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"has no harness/processes/serving\.py"):
        measuring_code(tmp_path)
