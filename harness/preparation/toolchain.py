"""What torch.compile finds out about a machine's compiler, separate from what it compiles for an arm."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from bench.corpus import cache_folder
from harness.preparation.prepared import Prepared
from harness.processes.failures import ArmFailed
from harness.processes.fork_server import ForkServer

TIMEOUT_S = 120.0


def learn(prepared: Prepared, fork_server: ForkServer) -> Path:
    """A compile cache with what belongs to the machine, such as its vector instructions, which are found by trial.

    Each arm's cache starts as a copy of it. Otherwise the first step of every compiling arm would include ten to
    twenty seconds that a user waits for once per machine, not once per model. It is made once for each machine, version
    of torch and compiler, and kept between runs. If that fails, the folder does not exist.
    """
    identity = (prepared.machine.machine_id, prepared.plan.device, torch.__version__, _compiler())
    kept = cache_folder() / f"toolchain-{hashlib.sha256(repr(identity).encode()).hexdigest()[:12]}"
    if kept.exists():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        arguments = {"folder": folder, "device": prepared.plan.device}
        try:
            fork_server.run("harness.preparation.toolchain:compile_something", arguments, TIMEOUT_S)
            # Whole or not at all: the arms of another run may be copying it. That run may also have been first.
            shutil.copytree(folder, f"{folder}-whole")
            os.rename(f"{folder}-whole", kept)
        except (ArmFailed, OSError):
            # The arms find out for themselves, or fail with their own reasons.
            shutil.rmtree(f"{folder}-whole", ignore_errors=True)
    return kept


def _compiler() -> str:
    """The compiler's version text; a newer compiler leads to other findings."""
    name = os.environ.get("CXX", "g++")
    try:
        return subprocess.run([name, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return f"no {name}"


def compile_something(folder: str, device: str) -> None:
    """Task: compile some function with this folder as the cache."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    torch.compile(lambda tensor: tensor.sin().sum(0))(torch.ones(8, 8, device=device))
