"""What all pages share: the templates, and the content security policy."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from reports.wording.printable import printable


def _breakable(name: str) -> Markup:
    """The name of a composition, with possible line breaks after each `_` and `+`."""
    return Markup("<wbr>").join(re.split(r"(?<=[_+])", printable(name)))


def _without_signs(value: object) -> object:
    """Plain strings without control characters, line breaks and tabs kept; Markup is our own and passes unchanged."""
    return printable(value, keep="\n\t") if type(value) is str else value


def _policy(script: str = "") -> str:
    """The content security policy: the page may run only this script, whatever was injected, and load nothing."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" if script else "'none'"
    # Charts and marks have inline styles.
    styles = "style-src 'unsafe-inline'; img-src data:"
    return f"default-src 'none'; script-src {allowed}; {styles}; base-uri 'none'; form-action 'none'"


def environment() -> Environment:
    """The environment that loads templates by file name."""
    # Indentation would make up a fifth of the page.
    loader = FunctionLoader(lambda name: re.sub(r"\n\s+", "\n", asset(name)))
    made = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, loader=loader, finalize=_without_signs
    )
    made.filters["breakable"] = _breakable
    made.globals["policy"] = _policy
    return made


def asset(name: str) -> str:
    """The text of a file in reports/page."""
    return files("reports.page").joinpath(name).read_text(encoding="utf-8")
