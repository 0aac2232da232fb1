"""What our own code never does, checked on its syntax trees: docs/security.md says the same."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests import ROOT
from tests.test_house import FLOORS, imported

NEVER_IMPORTED = ("pickle", "cloudpickle", "dill", "marshal", "shelve", "yaml", "joblib")
"""Data that these read can run arbitrary code."""

SHELL = {"harness/ab/checkout.py"}
"""Files that pass a command of the user's to a shell: `gate --setup`."""


def sources() -> list[Path]:
    return [file for floor in FLOORS for file in (ROOT / floor).rglob("*.py")]


def calls() -> Iterator[tuple[str, ast.Call]]:
    for file in sources():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield file.relative_to(ROOT).as_posix(), node


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((item.value for item in call.keywords if item.arg == name), None)


def test_nothing_is_read_that_can_run_code() -> None:
    assert len(sources()) > 200
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in sources()
        for name in imported(file)
        if name.partition(".")[0] in NEVER_IMPORTED
    }
    loads = [(file, call) for file, call in calls() if ast.unparse(call.func).endswith("torch.load")]
    assert loads
    wrong |= {
        f"{file}:{call.lineno} loads more than weights"
        for file, call in loads
        if not isinstance(only := keyword(call, "weights_only"), ast.Constant) or only.value is not True
    }
    assert not wrong


def test_no_text_becomes_code() -> None:
    wrong = {
        f"{file}:{call.lineno} calls {call.func.id}"
        for file, call in calls()
        if isinstance(call.func, ast.Name) and call.func.id in ("eval", "exec", "compile", "__import__")
    }
    assert not wrong


def test_no_model_brings_code_of_its_own() -> None:
    found = [(file, call, given) for file, call in calls() if (given := keyword(call, "trust_remote_code")) is not None]
    assert found
    assert not {f"{file}:{call.lineno}" for file, call, given in found if ast.unparse(given) != "False"}


def test_only_what_the_user_gives_for_it_goes_to_a_shell() -> None:
    found = {file for file, call in calls() if keyword(call, "shell") is not None}
    assert found == SHELL
    assert not {file for file, call in calls() if ast.unparse(call.func) in ("os.system", "os.popen")}
