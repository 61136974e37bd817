"""Read and write a folder in object storage, with errors that name the cause.

The code uses pyarrow.fs, which is part of pyarrow's wheels, so no further library has to be installed or audited.
Credentials are found as the cloud's own tools find them: in the environment, a profile, or the machine's role. They
are never taken from a URI, and never appear in a message.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import os
import re
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from contracts.errors import InputError
from storage.uris import check_name, check_uri

# An object is read in ranges of this many bytes, several at once. This takes 64 MiB of memory for an object of any
# size, and two or three times as much with pyarrow's copies.
_RANGE_BYTES = 8 << 20
_RANGES_AT_ONCE = 8
_SECRET = re.compile(r"(?i)(\w*(?:key|token|secret|signature|credential|password|sig)\w*)(\s*[=:]\s*)\S+")

_ACCESS = (
    "access denied; check that the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the "
    "machine's role) are valid and may do this"
)
_NETWORK = "the service cannot be reached; check the network, and AWS_ENDPOINT_URL where it is set"
_CAUSES = {
    "NO_SUCH_BUCKET": "no such bucket; create it, or correct the name",
    "NETWORK_CONNECTION": _NETWORK,
    "REQUEST_TIMEOUT": _NETWORK,
    "SLOW_DOWN": "the service asks for fewer requests; try again later",
    **dict.fromkeys(
        (
            "ACCESS_DENIED",
            "INVALID_ACCESS_KEY_ID",
            "SIGNATURE_DOES_NOT_MATCH",
            "INVALID_CLIENT_TOKEN_ID",
            "INVALID_SIGNATURE",
            "UNRECOGNIZED_CLIENT",
            "MISSING_AUTHENTICATION_TOKEN",
        ),
        _ACCESS,
    ),
}


class ObjectFolder:
    """The objects below a URI. Every method's InputError names the URI, the cause and what to do next."""

    def __init__(self, uri: str) -> None:
        scheme, bucket, key = check_uri(uri)
        self.uri = f"{scheme}://{bucket}/{key}"
        self.name = key.rpartition("/")[2]
        self._bucket = bucket
        self._root = f"{bucket}/{key}"
        with self._explained("opened"):
            self._files = _filesystem(scheme)

    @property
    def arrow(self) -> tuple[str, Any]:
        """The folder's path in its pyarrow file system, and that file system."""
        return self._root, self._files

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every object below the folder, by its name relative to the folder, ascending."""
        return {name: size for name, (size, _) in self.listing().items()}

    def listing(self) -> dict[str, tuple[int, int]]:
        """Return the bytes of every object below the folder and when it was written, by relative name, ascending.

        Times are in nanoseconds since 1970; 0: the service does not say.
        """
        from pyarrow import fs

        with self._explained("listed"):
            found = self._files.get_file_info(fs.FileSelector(self._root, recursive=True, allow_not_found=True))
        names = {
            info.path[len(self._root) + 1 :]: (info.size, info.mtime_ns or 0)
            for info in found
            if info.type == fs.FileType.File
        }
        for name in names:
            check_name(name, self.uri)
        return dict(sorted(names.items()))

    def itself(self) -> tuple[int, int] | None:
        """Return the bytes of the object at the folder's URI and when it was written; None if it is no object."""
        from pyarrow import fs

        with self._explained("opened"):
            info = self._files.get_file_info(self._root)
        return (info.size, info.mtime_ns or 0) if info.type == fs.FileType.File else None

    def read(self, name: str) -> bytes | None:
        """Return the content of a small object; None if there is no such object.

        Raises:
            InputError: the service refuses, or the bucket does not exist.
        """
        try:
            with self._explained(f"read ({name})"), self._files.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            self.check_bucket()
            return None

    def check_bucket(self) -> None:
        """Raise InputError if the bucket does not exist."""
        from pyarrow import fs

        with self._explained("opened"):
            info = self._files.get_file_info(self._bucket)
        if info.type == fs.FileType.NotFound:
            raise InputError(f"{self.uri}: {_CAUSES['NO_SUCH_BUCKET']}")

    def download(self, name: str, size: int, sink: IO[bytes]) -> str:
        """Copy an object to a file, reading ranges in parallel. Return the SHA-256 of the content.

        An empty name is the object at the folder's own URI.

        Raises:
            InputError: the object is missing, is not `size` bytes long, or cannot be read.
            OSError: the local file cannot be written.
        """
        digest, where = hashlib.sha256(), f"{self.uri}/{name}" if name else self.uri
        try:
            with self._explained(f"read ({name})"):
                source = self._files.open_input_file(self._path(name) if name else self._root)
                found = source.size()
        except FileNotFoundError:
            raise InputError(f"{where}: missing; write the folder again") from None
        if found != size:
            source.close()
            raise InputError(f"{where}: {found} bytes, {size} expected: truncated or altered; write the folder again")
        with source, contextlib.closing(self._ranges(source, size, name)) as ranges:
            for block in ranges:
                digest.update(block)
                sink.write(block)
        return digest.hexdigest()

    def _ranges(self, source: Any, size: int, name: str) -> Generator[bytes, None, None]:
        """Yield the bytes of an open object in order, while the next ranges are read in the background."""
        pending: deque[Future[bytes]] = deque()
        with ThreadPoolExecutor(_RANGES_AT_ONCE) as threads:
            for offset in range(0, size, _RANGE_BYTES):
                length = min(_RANGE_BYTES, size - offset)
                pending.append(threads.submit(source.read_at, length, offset))
                if len(pending) == _RANGES_AT_ONCE:
                    with self._explained(f"read ({name})"):
                        block = pending.popleft().result()
                    yield block
            while pending:
                with self._explained(f"read ({name})"):
                    block = pending.popleft().result()
                yield block

    def upload(self, file: Path, name: str) -> str:
        """Copy a file to an object. Return the SHA-256 of the content."""
        digest = hashlib.sha256()
        with (
            file.open("rb") as source,
            self._explained(f"written ({name})"),
            self._files.open_output_stream(self._path(name)) as sink,
        ):
            while block := source.read(_RANGE_BYTES):
                digest.update(block)
                sink.write(block)
                if source.tell() % (_RANGES_AT_ONCE * _RANGE_BYTES) == 0:
                    sink.flush()  # waits; pyarrow sends in the background and would queue the whole file
        return digest.hexdigest()

    def write(self, name: str, content: bytes) -> None:
        """Write a small object. Readers see the old content or the new content."""
        with self._explained(f"written ({name})"), self._files.open_output_stream(self._path(name)) as sink:
            sink.write(content)

    def delete(self, name: str) -> None:
        """Remove an object, if it exists."""
        with contextlib.suppress(FileNotFoundError), self._explained(f"deleted ({name})"):
            self._files.delete_file(self._path(name))

    def delete_below(self, name: str) -> None:
        """Remove all objects below a folder, many per request."""
        with contextlib.suppress(FileNotFoundError), self._explained(f"deleted ({name})"):
            self._files.delete_dir(self._path(name))

    def _path(self, name: str) -> str:
        check_name(name, self.uri)
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Turn pyarrow's errors into an InputError of one line without credentials.

        A FileNotFoundError, for a missing object, is raised unchanged.
        """
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, ValueError, NotImplementedError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.uri}: cannot be {action}: {_cause(str(error))}") from None


@functools.lru_cache(maxsize=8)
def _connected(scheme: str, endpoint: str | None, process: int) -> Any:  # noqa: ARG001 (a connection must not be used after a fork)
    from pyarrow import fs

    if scheme == "gs":
        return fs.GcsFileSystem(retry_time_limit=datetime.timedelta(minutes=1))
    where: dict[str, Any] = {}
    if endpoint:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
            raise InputError("AWS_ENDPOINT_URL: expected http(s)://host:port without credentials; correct it")
        where = {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    return fs.S3FileSystem(
        **where,
        connect_timeout=10,
        request_timeout=60,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=4),
        allow_delayed_open=True,  # a small object is one request, not three
    )


def _filesystem(scheme: str) -> Any:
    """Return the file system of a scheme, with one connection pool per process and service.

    The endpoint variables are read here, because pyarrow does not read them.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return _connected(scheme, endpoint if scheme == "s3" else None, os.getpid())


def _cause(message: str) -> str:
    """Return a service's error as one line, without anything that looks like a credential."""
    code = re.search(r"AWS Error (\w+)", message)
    if code and code[1] in _CAUSES:
        return _CAUSES[code[1]]
    if "status 301" in message:
        return "the bucket lies in another region; set AWS_REGION to it"
    if "status 403" in message:
        return _ACCESS
    line = " ".join(message.split())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        if secret := os.environ.get(name):
            line = line.replace(secret, "***")
    return _SECRET.sub(r"\1\2***", line)[:300] + "; check the URI, the credentials and the network"
