"""Object storage that fails: an S3 server in this process, as in tests/results/test_remote.py."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from unittest import mock

from moto.server import ThreadedMotoServer
from pyarrow import fs

from results import store
from results.remote import Remote
from tests.faults import Ground, fault
from tests.faults.kept import write
from tests.faults.runs import finished

BUCKET = "bucket"
URL = f"s3://{BUCKET}/run"


@contextlib.contextmanager
def stored(ground: Ground) -> Iterator[tuple[Remote, fs.FileSystem]]:
    """A run of four records in a bucket, with no local copy."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        own = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "XDG_CACHE_HOME": str(ground.folder / "cache"),
        }
        with mock.patch.dict(os.environ, own):
            bucket = fs.S3FileSystem(
                endpoint_override=f"{host}:{port}", scheme="http", region="us-east-1", allow_bucket_creation=True
            )
            bucket.create_dir(BUCKET)
            there = Remote(URL)
            write(there.folder, 0, 1)
            there.sync()
            shutil.rmtree(there.folder)
            yield there, bucket
    finally:
        server.stop()


def in_one_line(done: subprocess.CompletedProcess[str]) -> None:
    """Assert that the command failed, with one line of error that names what it could not get."""
    assert done.returncode not in (0, -9), done.stdout
    assert done.stderr.count("\n") == 1 and BUCKET in done.stderr, done.stderr


def told_and_read_later(there: Remote, port: int) -> None:
    """Assert that reading from the port fails with one line, and works once the storage answers again."""
    with mock.patch.dict(os.environ, {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}):
        in_one_line(finished("compare", URL))
    assert len(store.read(there.pull())) == 4


@fault("storage", "a server that refuses every connection", quick=True)
def refuses(ground: Ground) -> str:
    with stored(ground) as (there, _):
        with socket.create_server(("127.0.0.1", 0)) as closed:
            nobody = closed.getsockname()[1]
        told_and_read_later(there, nobody)
    return "one line and a code that is not 0; once it answers again, all four records are read"


@fault("storage", "a server that says nothing")
def silent(ground: Ground) -> str:
    with stored(ground) as (there, _), socket.create_server(("127.0.0.1", 0)) as listening:
        told_and_read_later(there, listening.getsockname()[1])
    return "one line and a code that is not 0, once its time is up; later all four records are read"


@fault("storage", "half an object comes back", quick=True)
def half(ground: Ground) -> str:
    with stored(ground) as (_, bucket):
        objects = bucket.get_file_info(fs.FileSelector(f"{BUCKET}/run/records", recursive=True))
        broken = min(item.path for item in objects if item.path.endswith(".parquet"))
        with bucket.open_input_stream(broken) as stream:
            content = stream.read()
        with bucket.open_output_stream(broken) as stream:
            stream.write(content[: len(content) // 2])
        in_one_line(finished("compare", URL))
        with bucket.open_output_stream(broken) as stream:
            stream.write(content)
        assert finished("compare", URL).returncode == 0
    return "named as what came back damaged, and nothing is made of it; whole again, it is read"
