"""Hooks of mkdocs: pages that are made of what the repository has anyway, and links that lead out of the site.

nox -s docs
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

COPIED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the root, and the pages that they become."""

REFERENCE = """# Python reference

::: bench.api.runs.run
::: bench.api.finished.Run
::: bench.api.finished.compare
::: bench.api.fits.fit
::: bench.api.fits.Fits
::: bench.api.gates.gate
::: bench.api.gates.Gate
::: bench.api.tuning.tune
::: bench.api.tuning.Tuned
::: bench.api.worths.worth
::: bench.api.worths.Worth
::: bench.api.days.day
::: results.day.Day
::: bench.causes.Unfinished
::: results.compare.Comparison
::: results.judgement.Judgement
::: harness.record.Record
::: harness.record.Measurement
::: harness.record.WorkCertificate
::: bench.spec.Plan
::: bench.spec.Protocol
::: bench.spec.WorkloadSpec
::: bench.workload.Workload
"""

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages that are not in docs/."""
    for source, target in COPIED.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, target, content=text))
    files.append(File.generated(config, "command-line.md", content=_command_line()))
    files.append(File.generated(config, "reference.md", content=REFERENCE))
    return files


def _command_line() -> str:
    command = [sys.executable, "-m", "typer", "bench.cli.app", "utils", "docs", "--name", "trainpace"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return shown.replace("# `trainpace`", "# The command line", 1)


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as the repository has them, to pages where they lead to one; what is only in the repository keeps its
    name."""
    source = next((name for name, target in COPIED.items() if target == page.file.src_uri), None)
    folder = ROOT if source else (ROOT / "docs" / page.file.src_uri).parent

    def rewritten(found: re.Match[str]) -> str:
        image, text, target, anchor = found.groups()
        if re.match(r"[a-z]+:", target):
            return found[0]
        path = (folder / target).resolve()
        name = str(path.relative_to(ROOT))
        inside = COPIED.get(name) or (
            str(path.relative_to(ROOT / "docs")) if path.is_relative_to(ROOT / "docs") else ""
        )
        if inside and files.get_file_from_path(inside):
            up = "../" * page.file.src_uri.count("/")
            return f"{image}[{text}]({up}{inside}{anchor or ''})"
        return text

    return LINK.sub(rewritten, markdown)
