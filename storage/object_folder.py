"""A folder in object storage: reading, writing, and errors that name the cause.

Through pyarrow.fs, which the wheels of pyarrow bring with them: no further library to install or to audit.
Credentials come from where the cloud's own tools look (environment, profile, role of the machine), never
from a URI, and never appear in a message.
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

# A range read at a time, and how many at once: 64 MiB in memory for an object of any size, twice or thrice that with
# the copies that pyarrow makes.
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
    """The objects below a URI. Every method raises InputError, naming the URI, the cause and the next move."""

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
        """The folder's path in its pyarrow file system, and that."""
        return self._root, self._files

    def sizes(self) -> dict[str, int]:
        """Bytes of every object below the folder, by name relative to it, ascending."""
        from pyarrow import fs

        with self._explained("listed"):
            found = self._files.get_file_info(fs.FileSelector(self._root, recursive=True, allow_not_found=True))
        names = {info.path[len(self._root) + 1 :]: info.size for info in found if info.type == fs.FileType.File}
        for name in names:
            check_name(name, self.uri)
        return dict(sorted(names.items()))

    def read(self, name: str) -> bytes | None:
        """A small object whole; None where there is none.

        Raises:
            InputError: also where the bucket itself does not exist.
        """
        try:
            with self._explained(f"read ({name})"), self._files.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            self.check_bucket()
            return None

    def check_bucket(self) -> None:
        """Raises InputError where there is no such bucket."""
        from pyarrow import fs

        with self._explained("opened"):
            info = self._files.get_file_info(self._bucket)
        if info.type == fs.FileType.NotFound:
            raise InputError(f"{self.uri}: {_CAUSES['NO_SUCH_BUCKET']}")

    def download(self, name: str, size: int, sink: IO[bytes]) -> str:
        """Copy an object to a file, ranges in parallel; returns the content's sha256.

        Raises:
            InputError: it is missing or not `size` bytes long.
            OSError: the local disk refuses.
        """
        digest = hashlib.sha256()
        try:
            with self._explained(f"read ({name})"):
                source = self._files.open_input_file(self._path(name))
                found = source.size()
        except FileNotFoundError:
            raise InputError(f"{self.uri}/{name}: missing; write the folder again") from None
        if found != size:
            source.close()
            raise InputError(
                f"{self.uri}/{name}: {found} bytes, {size} expected: truncated or altered; write the folder again"
            )
        with source, contextlib.closing(self._ranges(source, size, name)) as ranges:
            for block in ranges:
                digest.update(block)
                sink.write(block)
        return digest.hexdigest()

    def _ranges(self, source: Any, size: int, name: str) -> Generator[bytes, None, None]:
        """The bytes of an open object in order, a few ranges ahead."""
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
        """Copy a file to an object; returns the content's sha256."""
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
                    sink.flush()  # waits: pyarrow sends in the background, and would queue the whole file
        return digest.hexdigest()

    def write(self, name: str, content: bytes) -> None:
        """A small object whole: readers see the old content or the new."""
        with self._explained(f"written ({name})"), self._files.open_output_stream(self._path(name)) as sink:
            sink.write(content)

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with contextlib.suppress(FileNotFoundError), self._explained(f"deleted ({name})"):
            self._files.delete_file(self._path(name))

    def delete_below(self, name: str) -> None:
        """Remove every object below a folder, many per request; nothing happens where there is none."""
        with contextlib.suppress(FileNotFoundError), self._explained(f"deleted ({name})"):
            self._files.delete_dir(self._path(name))

    def _path(self, name: str) -> str:
        check_name(name, self.uri)
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """What pyarrow raises, as one line without credentials; a missing object stays FileNotFoundError."""
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, ValueError, NotImplementedError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.uri}: cannot be {action}: {_cause(str(error))}") from None


@functools.lru_cache(maxsize=8)
def _connected(scheme: str, endpoint: str | None, process: int) -> Any:  # noqa: ARG001 (not across a fork)
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
    """One connection pool per process and service; pyarrow does not read the variables of another endpoint."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return _connected(scheme, endpoint if scheme == "s3" else None, os.getpid())


def _cause(message: str) -> str:
    """One line for what a service answered, with anything that looks like a credential removed."""
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
