"""A run in a notebook: the matrix, and the answer in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from reports.page.templates import asset, environment
from reports.wording import matrix, sentences
from results.compare import Comparison


def render(comparisons: Sequence[Comparison], report: Path) -> str:
    """A self-contained `<div>`, with a link to the report."""
    return (
        environment()
        .get_template("notebook.html.j2")
        .render(
            matrix=matrix.matrix(comparisons),
            headline=sentences.headline(comparisons),
            report=report,
            style=Markup(_style()),
        )
    )


def _style() -> str:
    """The page's variables and its rules for the matrix, limited to the notebook's element."""
    sheet = asset("style.css")
    root = re.search(r":root \{(.*?)\n\}", sheet, re.DOTALL)
    rules = re.findall(r"^(\.(?:matrix|key|unseen)[^{]*\{[^}]*\})", sheet, re.MULTILINE)
    assert root and rules
    return "\n".join([f".trainpace {{{root[1]}\n}}", *(f".trainpace {rule}" for rule in rules)])
