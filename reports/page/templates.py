"""What all pages are made with: templates, and what a browser is told that they may do."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from reports.wording.printable import printable


def _breakable(name: str) -> Markup:
    """The name of a composition, which may go on in the next line after a joint."""
    return Markup("<wbr>").join(re.split(r"(?<=[_+])", printable(name)))


def _without_signs(value: object) -> object:
    """Text of ours comes as Markup, and what has lines is to keep them."""
    return printable(value, keep="\n\t") if type(value) is str else value


def _policy(script: str = "") -> str:
    """What the browser lets the page do: run this script and no other, whatever got into it, and load nothing."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" if script else "'none'"
    # Pictures and marks carry styles of their own.
    styles = "style-src 'unsafe-inline'; img-src data:"
    return f"default-src 'none'; script-src {allowed}; {styles}; base-uri 'none'; form-action 'none'"


def environment() -> Environment:
    """Templates by the names of their files."""
    # Indentation would be a fifth of the page.
    loader = FunctionLoader(lambda name: re.sub(r"\n\s+", "\n", asset(name)))
    made = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, loader=loader, finalize=_without_signs
    )
    made.filters["breakable"] = _breakable
    made.globals["policy"] = _policy
    return made


def asset(name: str) -> str:
    """The text of a file of this room."""
    return files("reports.page").joinpath(name).read_text(encoding="utf-8")
