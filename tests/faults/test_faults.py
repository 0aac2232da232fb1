"""The quick faults, and the page of all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.processes.fork_server import ForkServer
from tests.faults import PLANTED, Fault, Ground, Impossible, every_fault
from tests.faults.__main__ import FILE, PAGE, page


@pytest.fixture(scope="module")
def own_fork_server(own_cache: None) -> Iterator[ForkServer]:
    with ForkServer(modules=[PLANTED]) as started:
        yield started


@pytest.mark.long
@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize(
    "item", [item for item in every_fault() if item.quick], ids=lambda item: item.what.replace(" ", "-")
)
def test_a_fault_is_survived(item: Fault, own_fork_server: ForkServer, text_folder: Path, tmp_path: Path) -> None:
    ground = Ground(folder=tmp_path, text=text_folder, fork_server=own_fork_server, moments=3, quiet=False)
    try:
        assert item.inject(ground)
    except Impossible as error:
        pytest.skip(str(error))


def test_every_fault_is_in_the_page() -> None:
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    faults = {f"{item.group}: {item.what}": item for item in every_fault()}
    assert set(kept) == set(faults)
    assert PAGE.read_text(encoding="utf-8") == page([kept[name] for name in faults])
