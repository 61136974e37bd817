"""Input files at URIs: copied once to this node's cache, again if they change, and refused in one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.errors import InputError
from data.formats.file_source import FileSource
from storage.object_files import fetched_file, remote_files
from tests.data.read_rows import rows_with_nulls, source_of
from tests.s3_server import BUCKET, S3Server, running_server

ROOT = f"s3://{BUCKET}/raw"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with running_server() as server:
        for event in ("view", "buy"):
            text = f"user,item,timestamp\nu-{event},i,5\n".encode()
            server.write(f"raw/event={event}/part-0.csv", text)
        server.write("raw/_SUCCESS", b"")
        server.write("top.csv", b"user,item,timestamp\nu,i,5\n")
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MDSREC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def users(source: FileSource) -> list[str]:
    return rows_with_nulls(source).column("user").to_pylist()


def test_a_folder_and_an_object_at_a_uri_are_read(s3: S3Server) -> None:
    assert users(source_of("table", ROOT)) == ["u-buy", "u-view"]
    assert users(source_of("table", ROOT, keep=["event = view"])) == ["u-view"]
    assert users(source_of("table", f"{ROOT}/event=buy/part-0.csv")) == ["u-buy"]
    assert users(source_of("table", f"s3://{BUCKET}/top.csv")) == ["u"]
    s3.requests.clear()
    assert users(source_of("table", ROOT)) == ["u-buy", "u-view"]
    assert not [path for method, path in s3.requests if method == "GET" and path.endswith(".csv")]  # listed only


def test_an_object_that_changes_is_copied_again(s3: S3Server, cache: Path) -> None:
    uri = f"s3://{BUCKET}/changing.csv"
    s3.write("changing.csv", b"user,item,timestamp\na,i,5\n")
    assert users(source_of("table", uri)) == ["a"]
    s3.write("changing.csv", b"user,item,timestamp\nbb,i,5\n")
    assert users(source_of("table", uri)) == ["bb"]
    assert len(list((cache / "input").glob("*/changing.csv"))) == 2
    assert not list((cache / "input").glob("*/.unfinished"))


@pytest.mark.usefixtures("s3")
def test_what_is_not_there_or_has_gone_is_one_line(s3: S3Server) -> None:
    with pytest.raises(InputError, match=rf"s3://{BUCKET}/none: nothing is there; correct the URI"):
        source_of("table", f"s3://{BUCKET}/none")
    with pytest.raises(InputError, match=r"no such bucket"):
        source_of("table", "s3://no-such-bucket/none")
    with pytest.raises(InputError, match="scheme 'hdfs' is not supported"):
        source_of("table", "hdfs://host/x.csv")
    with pytest.raises(InputError, match=r"part '\*\.csv' is refused"):
        source_of("table", f"{ROOT}/*.csv")
    with pytest.raises(InputError, match="suffix '' is not"):
        source_of("table", f"{ROOT}/_SUCCESS")
    s3.write("gone.csv", b"user,item,timestamp\na,i,5\n")
    (found,) = remote_files(f"s3://{BUCKET}/gone.csv")
    s3.client.delete_object(Bucket=BUCKET, Key="gone.csv")
    with pytest.raises(InputError, match=rf"s3://{BUCKET}/gone\.csv: missing"):
        fetched_file(found)
