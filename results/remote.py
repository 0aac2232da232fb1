"""Runs in remote storage (s3://, gs://, hdfs:// and what fsspec knows), with a local copy of each file.

A run is measured into a local cache folder. Every file is uploaded once it is finished, so remote readers see it whole
or not at all. To read a run, its records are first downloaded into the same folder. While something is timed, nothing
that is kept depends on the network.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow import fs

from bench.causes import one_line
from bench.corpus import cache_folder
from results import store

PULLED = ("plan.json", "hosts.json", "_manifest.json")
"""Files other than records that reading or resuming a run needs."""

LEFT_HERE = (store.DAMAGED,)
"""Endings of the names of files that are not uploaded."""

CONNECT_S, REQUEST_S, ATTEMPTS = 10, 60, 3
"""Timeouts in seconds, and attempts, for storage that does not answer."""


class Remote:
    """A run, or a folder of runs, at a URL; `folder` is its local copy."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL of an unknown kind."""
        self.url = url.rstrip("/")
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self.folder = cache_folder() / "runs" / digest / (self.url.rpartition("/")[2] or "run")
        with self._told():
            self._fs, self._root = _opened(self.url)

    def pull(self) -> Path:
        """Download what is not here yet. Raises OSError for a file that cannot be fetched or arrives damaged."""
        with self._told():
            there = self._sizes()
            for name, size in there.items():
                file = self.folder / name
                if not _is_read(name) or (file.exists() and file.stat().st_size == size):
                    continue
                with self._fs.open_input_stream(f"{self._root}/{name}") as stream:
                    content = stream.read()
                if len(content) != size or not store.is_what_it_says(name, content):
                    raise OSError(f"{name} came back damaged: {len(content)} of {size} bytes")
                file.parent.mkdir(parents=True, exist_ok=True)
                fresh = file.with_name(f".{file.name}")
                fresh.write_bytes(content)
                fresh.replace(file)
            for file in self._records():
                if self._name(file) not in there and any(name.startswith("records/run-") for name in there):
                    # It has since been compacted into one file with others.
                    file.unlink()
        return self.folder

    def push(self, file: Path) -> None:
        """Upload a file of the folder. Raises OSError if that fails; then the remote file does not exist."""
        with self._told():
            content = file.read_bytes()
            with self._fs.open_output_stream(f"{self._root}/{self._name(file)}") as stream:
                stream.write(content)

    def sync(self) -> None:
        """Upload what is missing, and remove remote records that are no longer here. Raises OSError."""
        with self._told():
            there = self._sizes()
        own = [file for file in self.folder.rglob("*") if file.is_file() and not file.name.startswith(".")]
        # Records go first: no other file may refer to records that are not there yet.
        for file in sorted(own, key=lambda item: (item.suffix != ".parquet", item)):
            name = self._name(file)
            changes = file.suffix != ".parquet"
            if not name.endswith(LEFT_HERE) and (changes or there.get(name) != file.stat().st_size):
                self.push(file)
        names = {self._name(file) for file in own}
        with self._told():
            for name in there:
                if name.startswith("records/") and name not in names:
                    self._fs.delete_file(f"{self._root}/{name}")

    def _records(self) -> list[Path]:
        return list((self.folder / "records").glob("part-*.parquet"))

    def _name(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()

    def _sizes(self) -> dict[str, int]:
        """The remote files: their sizes in bytes, by name."""
        found = self._fs.get_file_info(fs.FileSelector(self._root, recursive=True, allow_not_found=True))
        # Some file systems begin all paths with a slash.
        root = f"{self._root.strip('/')}/"
        files = [item for item in found if item.type is fs.FileType.File]
        return {item.path.lstrip("/").removeprefix(root): item.size for item in files}

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Shorten the libraries' long messages, and add the URL, which they do not always name."""
        try:
            yield
        except OSError as error:
            raise OSError(f"{self.url}: {one_line(str(error))}") from error


def _is_read(name: str) -> bool:
    file = Path(name)
    return file.name in PULLED or (file.parent.name == "records" and file.suffix == ".parquet")


def _opened(url: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URL, and the path within it."""
    scheme, _, rest = url.partition("://")
    if scheme == "s3":
        return _s3(), rest
    try:
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(url)
        return found
    except (ValueError, OSError) as error:
        if scheme in ("gs", "gcs", "hdfs", "file"):
            raise ValueError(f"{url!r} cannot be opened: {one_line(str(error))}") from error
    try:
        import fsspec  # type: ignore[import-untyped]  # it has no stubs

        return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem(scheme))), rest
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"{url!r} is of an unknown kind ({one_line(str(error))}): give a path, s3://, gs://, hdfs:// "
            "or what fsspec knows"
        ) from error


def _s3() -> fs.FileSystem:
    """By the variables that AWS's own tools go by; keys are found as these find them."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    scheme, _, address = (endpoint or "").rpartition("://")
    return fs.S3FileSystem(
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        endpoint_override=address or None,
        scheme=scheme or "https",
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )
