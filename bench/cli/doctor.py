"""`trainpace doctor`: what this machine can and cannot measure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.console import usage_errors

if TYPE_CHECKING:
    from harness.surroundings import Finding


def doctor(
    machine: Annotated[
        bool, typer.Option("--machine", help="Just the machine and what is installed, without starting torch.")
    ] = False,
) -> None:
    """Say what this machine can and cannot measure, and why."""
    from harness import surroundings
    from reports import listing

    with usage_errors():
        findings = surroundings.look() if machine else _diagnosed()
    typer.echo(listing.aligned([dataclasses.asdict(finding) for finding in findings]))


def _diagnosed() -> list[Finding]:
    from harness.doctor import diagnose
    from harness.nursery import Nursery
    from harness.prepare import TASK_TIMEOUT_S

    with Nursery() as nursery:
        return diagnose(nursery, nursery.run("harness.machine:default_device", {}, TASK_TIMEOUT_S))
