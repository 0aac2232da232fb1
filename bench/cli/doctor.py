"""`trainpace doctor`: what this machine can and cannot measure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.console import usage_errors

if TYPE_CHECKING:
    from harness.telemetry.surroundings import Finding


def doctor(
    machine: Annotated[
        bool, typer.Option("--machine", help="Show only the machine and what is installed, without starting torch.")
    ] = False,
) -> None:
    """Say what this machine can and cannot measure, and why."""
    from harness.telemetry import surroundings
    from reports.text import listing

    with usage_errors():
        findings = surroundings.look() if machine else _diagnosed()
    typer.echo(listing.aligned([dataclasses.asdict(finding) for finding in findings]))


def _diagnosed() -> list[Finding]:
    from harness.preparation.doctor import diagnose
    from harness.preparation.prepared import TASK_TIMEOUT_S
    from harness.processes.fork_server import ForkServer

    with ForkServer() as fork_server:
        return diagnose(fork_server, fork_server.run("harness.preparation.machine:default_device", {}, TASK_TIMEOUT_S))
