"""A real S3 server over HTTP (moto's) for tests; it records requests, and reads objects without this project's code."""

from __future__ import annotations

import contextlib
import logging
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

BUCKET = "test-bucket"
SECRET = "wJalrXUtnFEMISECRETEXAMPLEKEY"
KEY = "AKIAIOSFODNN7EXAMPLE"


class S3Server(logging.Handler):
    """The running server.

    Attributes:
        url: address of the server.
        requests: (method, path) of all requests since a test cleared the list.
        client: a boto3 client.
    """

    def __init__(self, url: str) -> None:
        import boto3

        super().__init__()
        self.url = url
        self.requests: list[tuple[str, str]] = []
        self.client: Any = boto3.client(
            "s3", endpoint_url=url, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
        )

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage().partition('"')[2].replace("\x1b[0m", "").replace("\x1b[1m", "").split()
        self.requests.append((words[0].rpartition("m")[2], words[1].partition("?")[0]))

    def names(self, prefix: str) -> list[str]:
        """Return the keys that begin with a prefix."""
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return [entry["Key"] for entry in found]

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def write(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    @contextlib.contextmanager
    def checking_credentials(self) -> Iterator[None]:
        """Make the server refuse all credentials within the block."""
        self._authorise_first(b"0")
        try:
            yield
        finally:
            self._authorise_first(b"inf")

    def _authorise_first(self, requests: bytes) -> None:
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.url}/moto-api/reset-auth", data=requests, headers=headers)
        urllib.request.urlopen(request).close()


@contextlib.contextmanager
def running_server() -> Iterator[S3Server]:
    """Start a server with one empty bucket, and set the environment variables with which this project finds it."""
    from moto.server import ThreadedMotoServer  # takes half a second, so it is imported only where it is needed

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    handler = S3Server(f"http://{host}:{port}")
    log = logging.getLogger("werkzeug")
    log.addHandler(handler)
    log.propagate = False
    variables = {
        "AWS_ENDPOINT_URL": handler.url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        handler.client.create_bucket(Bucket=BUCKET)
        yield handler
    log.removeHandler(handler)
    server.stop()
