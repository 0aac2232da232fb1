"""Malicious names from someone else."""

from __future__ import annotations

import dataclasses
import unicodedata
from html.parser import HTMLParser

from results import store
from results.compaction import compact
from tests.faults import Ground, fault
from tests.faults.runs import finished
from tests.reports import synthetic

NAMES = (
    "../../etc/passwd",
    "nul\0byte",
    "'\"`$(reboot)`;--",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\x1b[2J\x1b]0;title\x07red",
    "\u202egnirts\u202c \u2066inside\u2069",
    "{{ 7 * 7 }}{% raw %}",
    "a" * 10_000,
)


class _Elements(HTMLParser):
    """Collects the elements that a browser would create."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@fault(
    "strangers",
    "names with paths, quotes, markup, templates, terminal escapes, reversed text, 10,000 letters",
    quick=True,
)
def names(ground: Ground) -> str:
    folder = ground.folder / "run"
    for name in NAMES:
        for label, step_s in (("fp32", 0.05), (name, 0.04)):
            for repetition in range(3):
                made = synthetic.record(label, repetition, workload=name, step_s=step_s)
                made = dataclasses.replace(made, reason=name, run_id="run")
                store.write(made, folder, machine=synthetic.machine(), plan=synthetic.PLAN)
    compact(folder)
    kept = store.read(folder)
    assert {item.workload for item in kept} == set(NAMES)
    everything = {item.relative_to(ground.folder).parts[0] for item in ground.folder.rglob("*")}
    assert everything <= {"run", "text"}, everything
    page = ground.folder / "run" / "page.html"
    for words in (("compare", folder), ("compare", folder, "--format", "markdown"), ("report", folder, "--out", page)):
        done = finished(*words)
        assert done.returncode == 0, done.stderr[-500:]
        signs = {sign for sign in done.stdout + done.stderr if unicodedata.category(sign) in ("Cc", "Cf")} - {"\n"}
        assert not signs, (words[0], signs)
    text = page.read_text(encoding="utf-8")
    elements = _Elements(text).found
    assert sum(tag == "script" and "type" not in attributes for tag, attributes in elements) == 1
    assert not [attributes for _, attributes in elements if any(name.startswith("on") for name in attributes)]
    assert not {sign for sign in text if unicodedata.category(sign) in ("Cc", "Cf")} - {"\n", "\t"}
    assert "Content-Security-Policy" in text and "{{ 7 * 7 }}" in text
    return (
        f"{len(NAMES)} names, as workloads, techniques and reasons: kept as they are in the run's folder; the page has "
        "its own script alone, the terminal no sign that it would obey"
    )
