"""Runs in object storage: an S3 server in this process, whose calls really fail."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs
from typer.testing import CliRunner

from bench.cli.app import app
from bench.corpus import cache_folder
from bench.spec import Plan, WorkloadSpec
from results import remote, store
from results.compaction import compact
from results.remote import Remote
from tests.samples import MACHINE, record

PLAN = Plan(name="p", workloads=(WorkloadSpec(model="gpt2/nano"),), compositions=(("adam",),))
BUCKET = "bucket"


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedMotoServer]:
    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def bucket(server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch, own_cache: None) -> Iterator[fs.FileSystem]:
    """An empty bucket, and the environment variables that AWS's own tools use."""
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    storage = fs.S3FileSystem(
        endpoint_override=f"{host}:{port}", scheme="http", region="us-east-1", allow_bucket_creation=True
    )
    storage.create_dir(BUCKET)
    # Remove what another test has left; the server may have moved to another port since.
    storage.delete_dir_contents(BUCKET)
    yield storage
    shutil.rmtree(cache_folder() / "runs", ignore_errors=True)


def kept(there: Remote, *repetitions: int) -> None:
    for repetition in repetitions:
        for label in ("fp32", "adam"):
            part = store.write(record(label, repetition, [0.1, 0.2]), there.folder, machine=MACHINE, plan=PLAN)
            there.push(part)


def names(bucket: fs.FileSystem) -> set[str]:
    found = bucket.get_file_info(fs.FileSelector(BUCKET, recursive=True))
    return {item.path.removeprefix(f"{BUCKET}/run/") for item in found if item.type is fs.FileType.File}


def forgotten(there: Remote) -> Remote:
    """The same run on a machine that has never seen it."""
    shutil.rmtree(there.folder)
    return Remote(there.url)


def test_parts_go_there_as_they_are_finished_and_one_file_takes_their_place(bucket: fs.FileSystem) -> None:
    there = Remote(f"s3://{BUCKET}/run")
    kept(there, 0, 1)
    before = store.read(there.folder)
    assert len(names(bucket)) == 4
    assert store.read(forgotten(there).pull()) == before
    reader = Remote(there.url)
    compact(reader.folder)
    reader.sync()
    assert {Path(name).name.partition("-")[0] for name in names(bucket)} == {"run", "_manifest.json"}
    # A reader that already has the parts still reads each record once.
    assert store.read(Remote(there.url).pull()) == before
    assert store.read(forgotten(there).pull()) == before


def test_what_comes_back_as_something_else_is_told(bucket: fs.FileSystem) -> None:
    there = Remote(f"s3://{BUCKET}/run")
    kept(there, 0)
    (name, *_) = sorted(names(bucket))
    with bucket.open_input_stream(f"{BUCKET}/run/{name}") as stream:
        content = stream.read()
    with bucket.open_output_stream(f"{BUCKET}/run/{name}") as stream:
        stream.write(content[: len(content) // 2])
    shown = CliRunner().invoke(app, ["compare", forgotten(there).url])
    assert shown.exit_code == 1 and "came back damaged" in shown.output


def test_a_storage_that_refuses_or_says_nothing_is_one_line(
    bucket: fs.FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_port = silent.getsockname()[1]
        monkeypatch.setattr(remote, "REQUEST_S", 1)
        monkeypatch.setattr(remote, "ATTEMPTS", 1)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent_port}")
        shown = CliRunner().invoke(app, ["compare", f"s3://{BUCKET}/run"])
        assert shown.exit_code == 1 and f"s3://{BUCKET}/run" in shown.output and shown.output.count("\n") == 1
    # The server no longer listens there.
    shown = CliRunner().invoke(app, ["compare", f"s3://{BUCKET}/run"])
    assert shown.exit_code == 1 and f"s3://{BUCKET}/run" in shown.output and shown.output.count("\n") == 1


def test_a_url_that_nothing_knows_is_told() -> None:
    shown = CliRunner().invoke(app, ["compare", "nowhere://bucket/run"])
    assert shown.exit_code == 2 and "is of an unknown kind" in shown.output


def test_what_fsspec_knows_is_known(own_cache: None) -> None:
    there = Remote("memory://bucket/run")
    kept(there, 0)
    assert len(store.read(forgotten(there).pull())) == 2


@pytest.mark.long
@pytest.mark.usefixtures("lent", "undisturbed")
def test_a_run_goes_there_fails_with_it_and_goes_on(
    bucket: fs.FileSystem, server: ThreadedMotoServer, text_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["--model", "gpt2/nano", "--batch", "8", "--sequence", "32", "--data", str(text_folder), "--device", "cpu"]
    words = ["run", *small, "--technique", "adamw_foreach", "--repetitions", "2", "--out", f"s3://{BUCKET}/runs"]
    own, pushed = Remote.push, 0

    def refused_at_the_third(there: Remote, file: Path) -> None:
        nonlocal pushed
        pushed += 1
        if pushed == 3:
            # From now on there is no answer.
            server.stop()
            monkeypatch.setattr(remote, "ATTEMPTS", 1)
            Remote(there.url)._fs.get_file_info(f"{BUCKET}/runs")
        own(there, file)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "push", refused_at_the_third)
        failed = CliRunner().invoke(app, words)
    assert failed.exit_code == 1 and f"trainpace run --resume s3://{BUCKET}/runs/" in failed.output, failed.output
    url = failed.output.rpartition("--resume ")[2].strip()
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    before = {item.techniques for item in store.read(forgotten(Remote(url)).pull())}
    assert before
    done = CliRunner().invoke(app, ["run", "--resume", url])
    assert done.exit_code == 0 and url in done.output, done.output
    found = store.read(forgotten(Remote(url)).pull())
    assert {(item.techniques, item.repetition) for item in found if not item.copy} >= {
        (label, repetition) for label in ("fp32", "adamw_foreach") for repetition in (0, 1)
    }
    asked = CliRunner().invoke(app, ["query", "SELECT count(*) AS n FROM arms", url, "--format", "json"])
    assert f'"n": {len(found)}' in asked.output
