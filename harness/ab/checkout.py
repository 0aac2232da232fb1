"""Revisions of the user's repository, each in its own folder."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import temporary
from bench.causes import one_line
from harness.telemetry.surroundings import git_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A folder with the user's code: `top` of the repository (outside git, the folder itself), and `inside`, the path
    below it where the gate was started. `commit` is None outside git."""

    top: Path
    inside: Path
    commit: str | None
    dirty: bool

    def describe(self) -> str:
        """As in `1a2b3c4d5e`, with a note if the working tree differs from that commit."""
        if self.commit is None:
            return "the working folder"
        return f"{self.commit[:10]}{' with changes that are not committed' if self.dirty else ''}"


def here() -> Checkout:
    """The working tree that this process runs in, as it is."""
    folder = Path.cwd().resolve()
    commit, _ = git_state()
    shown = _git("rev-parse", "--show-toplevel", folder=folder, check=False) if commit else ""
    top = Path(shown).resolve() if shown else folder
    # An untracked file is a change too: it may be the model itself.
    dirty = bool(commit and _git("status", "--porcelain", folder=top, check=False))
    return Checkout(top=top, inside=folder.relative_to(top), commit=commit, dirty=dirty)


@contextlib.contextmanager
def worktree(ref: str, folder: Path, setup: str | None) -> Iterator[Checkout]:
    """Check out `ref` of the repository that this process runs in to `folder`, as long as the context lasts.

    `setup` is a shell command that is run there first, to add what a fresh checkout lacks. Raises ValueError if `ref`
    is not a revision, or the command fails.
    """
    # If something is wrong with the repository itself, this reports it in git's own words.
    _git("rev-parse", "--show-toplevel", folder=Path.cwd())
    origin = here()
    commit = resolve(ref)
    _forget_what_was_swept(origin.top)
    try:
        _git("worktree", "add", "--detach", "--force", str(folder), commit, folder=origin.top)
        if (folder / ".gitmodules").exists():
            _git("submodule", "update", "--init", "--recursive", folder=folder)
        if setup:
            done = subprocess.run(setup, shell=True, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ValueError(f"--setup {setup!r} failed on {ref}: {_why(done.stderr or done.stdout)}")
        yield Checkout(top=folder.resolve(), inside=origin.inside, commit=commit, dirty=False)
    finally:
        _git("worktree", "remove", "--force", str(folder), folder=origin.top, check=False)


def _forget_what_was_swept(top: Path) -> None:
    """Remove the worktrees of a killed gate from git's list: their folders are gone."""
    for line in _git("worktree", "list", "--porcelain", folder=top, check=False).splitlines():
        path = Path(line.removeprefix("worktree "))
        if line.startswith("worktree ") and path.parent.name.startswith(temporary.PREFIX) and not path.exists():
            _git("worktree", "remove", "--force", str(path), folder=top, check=False)


def resolve(ref: str) -> str:
    """The commit that a name refers to. Raises ValueError if there is none."""
    try:
        return _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", folder=Path.cwd())
    except ValueError:
        branches = _git("branch", "--all", "--format=%(refname:short)", folder=Path.cwd(), check=False).split()
        known = ", ".join(branches[:8]) or "none: is this a git repository?"
        raise ValueError(
            f"revision {ref!r} is unknown here: give a commit, a tag or a branch ({known}); "
            "a shallow clone needs `git fetch` of it first"
        ) from None


def _git(*words: str, folder: Path, check: bool = True) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ValueError("git is not installed: revisions cannot be checked out") from None
    if done.returncode and check:
        raise ValueError(f"git {words[0]} failed: {_why(done.stderr)}")
    return done.stdout.strip()


def _why(text: str) -> str:
    """A program's reason for its failure: its output from the first error line on, or else its last line."""
    lines = text.strip().splitlines() or ["it printed no message"]
    fatal = [index for index, line in enumerate(lines) if line.startswith(("fatal: ", "error: "))]
    return one_line("\n".join(lines[fatal[0] :])) if fatal else lines[-1]
