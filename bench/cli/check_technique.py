"""`trainpace check-technique`: whether a technique keeps its word."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from bench.cli.console import NOTHING_MEASURED, fail, usage_errors
from bench.cli.options import Plugins
from reports import listing


def check_technique(
    name: Annotated[str, typer.Argument(help="A technique; see `trainpace list techniques`.")],
    model: Annotated[list[str] | None, typer.Option(help="Default: gpt2/nano and bert/nano. May repeat.")] = None,
    plugin: Plugins = None,
) -> None:
    """Run the conformance tests on a technique: it applies, trains, composes and changes only what it declares."""
    from bench.cli import running
    from harness import conformance

    with usage_errors(), running.nursery(plugin) as nursery:
        findings = conformance.check(name, nursery, models=tuple(model or conformance.MODELS))
    typer.echo(listing.aligned([dataclasses.asdict(finding) for finding in findings]))
    if not all(finding.passed for finding in findings):
        fail(f"{name} does not keep its word: the reasons are above", NOTHING_MEASURED)
