"""A page with very many arms contains all of them, and stays small."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import pytest

from bench.api.finished import page, page_of
from reports.page import large
from results import store
from tests.reports import synthetic
from tests.reports.synthetic import Page


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(large, "MANY", 20)
    monkeypatch.setattr(large, "AT_ONCE", 7)
    for workload in ("gpt2/tiny", "gpt2/nano"):
        for record in synthetic.run(workload, 2):
            store.write(record, tmp_path, machine=synthetic.machine(), plan=synthetic.PLAN)
    return tmp_path


def test_all_arms_are_packed_and_the_best_are_shown(folder: Path) -> None:
    text = page_of([folder])
    assert text == page(store.read(folder), store.read_machine(folder), store.read_plan(folder))
    parsed = Page(text)
    assert not parsed.open
    assert not parsed.links, "one file, which loads nothing"
    (packed,) = re.findall(r'id="arms"[^>]*>([^<]+)<', text)
    arms = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert len(arms) == 2 * (len(synthetic.TIMES) + len(synthetic.FAILED))
    assert {arm["techniques"] for arm in arms} == {*synthetic.TIMES, *synthetic.FAILED}
    failed = next(arm for arm in arms if arm["techniques"] == "ddp_2")
    assert failed["outcome"] == "out of memory" and "can't allocate memory" in failed["note"]
    assert parsed.texts.count("faster") > 2 and len(re.findall('<th scope="row">', text)) == 7 + 2


def test_what_is_told_of_an_arm_cannot_leave_its_place(folder: Path) -> None:
    hostile = synthetic.record(synthetic.HOSTILE, 0, workload="gpt2/tiny")
    store.write(hostile, folder, machine=synthetic.machine(), plan=synthetic.PLAN)
    text = page_of([folder])
    assert synthetic.HOSTILE not in text


def test_a_run_of_fewer_arms_has_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "MANY", 2)
    for techniques in ("fp32", "compile"):
        store.write(synthetic.record(techniques, 0), tmp_path, machine=synthetic.machine(), plan=synthetic.PLAN)
    assert "<svg" in page_of([tmp_path])
