"""What the commands share: how bad input and failures become one line and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from bench.causes import Unfinished, unwritten
from harness.processes.failures import ArmFailed, ForkServerFailed
from reports.wording.printable import printable

USAGE_ERROR = 2
NOTHING_MEASURED = 1
INTERRUPTED = 130


def fail(message: object, code: int = USAGE_ERROR) -> NoReturn:
    """One line on standard error, and out."""
    # It may contain names that somebody else chose.
    typer.echo(f"trainpace: {printable(str(message), keep=chr(10))}", err=True)
    raise typer.Exit(code)


@contextmanager
def usage_errors(failed: int = NOTHING_MEASURED) -> Iterator[None]:
    """Bad input, which is a ValueError that names it, ends the program with one line; so does a machine that fails."""
    try:
        yield
    except ValueError as error:
        fail(error)
    except Unfinished as error:
        fail(error, INTERRUPTED if error.interrupted else failed)
    except (ArmFailed, ForkServerFailed) as error:
        fail(error, failed)
    except OSError as error:
        fail(unwritten(error), failed)
