"""The project's tasks. Each is a thin wrapper around `python -m`, so a machine without nox can do the same."""

from __future__ import annotations

import os
from pathlib import Path

import nox

nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "lint", "typecheck"]

CONSTRAINTS = ("--constraint", "constraints.txt")

BESIDE = ("--numprocesses", str(min(8, 2 + (os.cpu_count() or 1))), "--dist", "loadfile", "--no-loadscope-reorder")
"""Test files run in parallel, in the order of tests/conftest.py and on one thread each: two processes that use every
core wait for each other. There are more processes than cores, because tests that start others wait for them."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
IN_BROWSER = "tests/reports/in_browser.py"


def install(session: nox.Session, *groups: str) -> None:
    """Install the package with all extras, editable, and dependency groups, at the pinned versions."""
    requirements = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), *groups) if groups else ()
    session.install(*CONSTRAINTS, "--editable", ".[all]", *requirements)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the default plan and render its report; arguments after -- are passed to `trainpace run`."""
    install(session)
    session.run("python", "-m", "bench", "run", *session.posargs)


@nox.session
def gate(session: nox.Session) -> None:
    """Check a head for regressions against a base: nox -s gate -- --model gpt2/tiny --head-technique compile."""
    install(session)
    session.run("python", "-m", "bench", "gate", *session.posargs)


@nox.session
def report(session: nox.Session) -> None:
    """Render the report of finished runs: nox -s report -- runs/RUN_ID."""
    install(session)
    session.run("python", "-m", "bench", "report", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, except the long ones; arguments after -- are passed to pytest."""
    install(session, "tests")
    session.run("python", "-m", "pytest", *BESIDE, "-m", "not long", *session.posargs, env=ONE_THREAD)


@nox.session
def long(session: nox.Session) -> None:
    """Run the long tests: every technique, whole gates; arguments after -- are passed to pytest."""
    install(session, "tests")
    run_long(session)


def run_long(session: nox.Session, *others: str) -> None:
    """Run the long tests and the files in `others` in parallel, then one by one those that judge times."""
    files = ("tests", *others) if others else ()
    session.run("python", "-m", "pytest", *BESIDE, "-m", "long and not alone", *files, *session.posargs, env=ONE_THREAD)
    session.run("python", "-m", "pytest", "-m", "alone", *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """Test the report in Chromium: its script, every width, light and dark mode, accessibility."""
    install(session, "tests", "browser")
    session.run("python", "-m", "pytest", IN_BROWSER, *session.posargs)


@nox.session
def catalogue(session: nox.Session) -> None:
    """Regenerate bench/catalogue.json and the table in docs/techniques.md from the registry."""
    install(session)
    session.run("python", "-m", "bench.catalogue")
    table = session.run("python", "-m", "bench", "list", "techniques", "--markdown", silent=True)
    page = Path("docs/techniques.md")
    head, _, _ = page.read_text(encoding="utf-8").partition("| name |")
    page.write_text(f"{head}{str(table).strip()}\n", encoding="utf-8")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site into site/, from docs/, the registry and the docstrings; warnings are errors."""
    install(session, "docs")
    session.run("python", "-m", "mkdocs", "build", "--strict", "--quiet", *session.posargs)


@nox.session
def cuda_build(session: nox.Session) -> None:
    """Run the tests that cover more with a CUDA build of torch; no GPU is needed to install and import it."""
    # PyPI's own build, whatever other build pip is configured to find on this machine.
    env = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    requirements = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "tests")
    session.install(*CONSTRAINTS, "--editable", ".[all]", *requirements, env=env)
    session.run("python", "-c", "import torch; assert torch.version.cuda, 'this build of torch is one without CUDA'")
    files = [
        *(f"tests/harness/telemetry/test_{name}.py" for name in ("driver", "gpus")),
        *(f"tests/harness/processes/test_{name}.py" for name in ("preload", "fork_server")),
        "tests/bench/techniques/test_precision.py",
        "tests/test_fake_gpu.py",
    ]
    session.run("python", "-m", "pytest", *(session.posargs or files))


@nox.session
def truth(session: nox.Session) -> None:
    """Measure trainpace itself against a bare training loop, alternated with it in one run."""
    install(session)
    session.run("python", "-m", "tests.truth", *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """Check trainpace's results on a GPU against independent sources, in nine minutes: docs/gpu.md."""
    install(session)
    session.run("python", "-m", "tests.gpu_acceptance", *session.posargs)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Time trainpace's own parts with pytest-benchmark; arguments after -- are passed to pytest."""
    install(session, "tests")
    session.run("python", "-m", "pytest", "tests/benchmarks/bench_harness.py", *session.posargs)


@nox.session
def mutations(session: nox.Session) -> None:
    """Blind the gate in every known way and print its verdicts: docs/mutations.md."""
    install(session, "tests")
    session.run("python", "-m", "tests.mutations", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Inject every fault for real, and report what survived: docs/faults.md."""
    install(session, "tests")
    session.run("python", "-m", "tests.faults", *session.posargs)


@nox.session
def peers(session: nox.Session) -> None:
    """Try the same faults on other tools and print their exit codes: docs/peers.md."""
    session.install(*CONSTRAINTS, "pytest", "pytest-benchmark", "pytest-xdist", "pyperf", "asv", "virtualenv")
    session.run("python", "tests/peers.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    groups = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "lint")
    session.install(*CONSTRAINTS, *groups)
    session.run("python", "-m", "ruff", "check")
    session.run("python", "-m", "ruff", "format", "--check")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Check types strictly."""
    install(session, "typecheck")
    session.run("python", "-m", "mypy", "--num-workers", str(os.cpu_count() or 1))


@nox.session
def check(session: nox.Session) -> None:
    """Run everything that a change must pass, in one environment: lint, types, documentation and every test."""
    for part in (lint, typecheck, docs, tests):
        part(session)
    install(session, "tests", "browser")
    run_long(session, IN_BROWSER)
