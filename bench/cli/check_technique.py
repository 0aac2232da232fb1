"""`trainpace check-technique`: whether a technique keeps its word."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from bench.cli.console import NOTHING_MEASURED, fail, usage_errors
from bench.cli.options import Plugins
from reports.text import listing


def check_technique(
    name: Annotated[str, typer.Argument(help="A technique; see `trainpace list techniques`.")],
    model: Annotated[list[str] | None, typer.Option(help="Default: gpt2/nano and bert/nano. Can be repeated.")] = None,
    plugin: Plugins = None,
) -> None:
    """Check that a technique applies, trains, composes with others, and changes only what it declares."""
    from bench.api.runs import fork_server as started
    from harness.heats import conformance

    with usage_errors(), started(plugin or ()) as fork_server:
        findings = conformance.check(name, fork_server, models=tuple(model or conformance.MODELS))
    typer.echo(listing.aligned([dataclasses.asdict(finding) for finding in findings]))
    if not all(finding.passed for finding in findings):
        fail(f"{name} failed its checks: the reasons are above", NOTHING_MEASURED)
