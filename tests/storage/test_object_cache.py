"""Datasets in object storage, against a real S3 server: prepared, published, fetched once, checked, refused."""

import json
import pickle
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import InputError
from data.dataset import Dataset
from distributed.world import World
from jobs.prepare_data import prepare
from storage import object_cache, object_store
from storage.object_cache import cache_folder, fetched, published
from storage.object_store import ObjectFolder
from storage.uris import check_name, check_uri
from tests.distributed.spawn import run_ranks
from tests.s3_server import BUCKET, KEY, SECRET, running_server

SIZES = {"num_users": 40, "num_items": 30, "seed": 0}


@pytest.fixture(scope="module")
def s3():
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def content(s3, tmp_path_factory):
    """Objects of a dataset as prepare_data published them, by name, and the same dataset in a local folder.

    A worker that takes over tests makes them again, so each time they need a new URI.
    """
    folder = tmp_path_factory.mktemp("content")
    local = prepare("synthetic", str(folder / "d"), **SIZES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MDSREC_CACHE", str(folder / "cache"))
        prepare("synthetic", f"s3://{BUCKET}/{folder.name}", **SIZES)
    return {key.partition("/")[2]: s3.read(key) for key in s3.names(f"{folder.name}/")}, local


@pytest.fixture
def remote(s3, content, tmp_path, monkeypatch):
    """A dataset at a URI of its own, and an empty cache; the URI and the key."""
    monkeypatch.setenv("MDSREC_CACHE", str(tmp_path / "cache"))
    for name, data in content[0].items():
        s3.write(f"{tmp_path.name}/d/{name}", data)
    s3.requests.clear()
    return f"s3://{BUCKET}/{tmp_path.name}/d", f"{tmp_path.name}/d"


def nothing_cached() -> bool:
    """Locks may stay; copies and half-written ones may not."""
    return not cache_folder().exists() or all(path.suffix == ".lock" for path in cache_folder().iterdir())


def test_a_published_dataset_is_the_local_one(remote, content) -> None:
    uri, _ = remote
    dataset, local = Dataset.open(uri), content[1]
    dataset.validate()
    dataset.verify_fingerprint()
    assert dataset.path == uri
    assert dataset.fingerprint == local.fingerprint
    np.testing.assert_array_equal(dataset.items, local.items)
    for modality in local.modalities:
        np.testing.assert_array_equal(dataset.features(modality), local.features(modality))
    assert set(content[0]) == {"manifest.json", "objects.json", *local.manifest["bytes"]}


def test_a_second_open_reads_the_manifest_and_nothing_else(remote, s3) -> None:
    uri, key = remote
    first = Dataset.open(uri)
    assert {path for method, path in s3.requests if method == "GET"} == {f"/{BUCKET}/{name}" for name in s3.names(key)}
    s3.requests.clear()
    assert Dataset.open(uri).folder == first.folder
    assert {path for _, path in s3.requests} == {f"/{BUCKET}/{key}/manifest.json"}
    s3.requests.clear()
    assert pickle.loads(pickle.dumps(first)).folder == first.folder  # noqa: S301 (as data loaders do)
    assert s3.requests == []


def fetch_and_count(world: World, uri: str, results: Path) -> None:
    calls = []
    download = object_cache._download

    def counted(*arguments) -> None:
        calls.append(arguments)
        download(*arguments)

    object_cache._download = counted
    world.barrier()
    (results / f"{world.rank}.json").write_text(json.dumps([str(fetched(uri)), len(calls)]))


def test_processes_that_ask_at_once_share_one_copy(remote, tmp_path) -> None:
    uri, _ = remote
    run_ranks(3, fetch_and_count, uri, tmp_path)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert len({folder for folder, _ in found}) == 1
    assert sum(downloads for _, downloads in found) == 1


@pytest.mark.parametrize("with_index", [True, False])
def test_a_truncated_object_is_refused_and_leaves_nothing(remote, s3, content, with_index) -> None:
    uri, key = remote
    if not with_index:
        s3.client.delete_object(Bucket=BUCKET, Key=f"{key}/objects.json")
    s3.write(f"{key}/sequences.arrow", content[0]["sequences.arrow"][:-7])
    with pytest.raises(InputError, match=r"/d/sequences.arrow: \d+ bytes, .*truncated"):
        Dataset.open(uri)
    assert nothing_cached()


def test_an_altered_object_of_the_same_size_is_refused(remote, s3, content) -> None:
    uri, key = remote
    data = bytearray(content[0]["sequences.arrow"])
    data[len(data) // 2] ^= 1
    s3.write(f"{key}/sequences.arrow", bytes(data))
    with pytest.raises(InputError, match=r"sequences.arrow: its content has sha256 .*altered"):
        Dataset.open(uri)
    assert nothing_cached()


def test_a_missing_object_is_named(remote, s3) -> None:
    uri, key = remote
    s3.client.delete_object(Bucket=BUCKET, Key=f"{key}/users.parquet")
    with pytest.raises(InputError, match=r"users.parquet: missing"):
        Dataset.open(uri)
    s3.client.delete_object(Bucket=BUCKET, Key=f"{key}/objects.json")
    with pytest.raises(InputError, match=r"users.parquet: no bytes, the manifest says"):
        Dataset.open(uri)


def test_a_folder_copied_there_by_other_means_opens(remote, s3, content) -> None:
    uri, key = remote
    s3.client.delete_object(Bucket=BUCKET, Key=f"{key}/objects.json")
    assert Dataset.open(uri).fingerprint == content[1].fingerprint


def test_names_that_climb_out_are_refused(remote, s3, content) -> None:
    uri, key = remote
    index = json.loads(content[0]["objects.json"])
    for name in ("../../escaped", "/etc/escaped", "a//b", "a\\b"):
        index["files"] = {name: {"bytes": 1, "sha256": "0"}}
        s3.write(f"{key}/objects.json", json.dumps(index).encode())
        with pytest.raises(InputError, match="is refused"):
            Dataset.open(uri)
    assert nothing_cached()
    with pytest.raises(InputError, match="is refused"):
        check_name("features/../../x", "listing")


def test_an_index_of_another_manifest_is_refused(remote, s3, content) -> None:
    uri, key = remote
    s3.write(f"{key}/manifest.json", content[0]["manifest.json"] + b" ")
    with pytest.raises(InputError, match=r"objects.json does not belong to manifest.json"):
        Dataset.open(uri)
    s3.write(f"{key}/objects.json", b"[]")
    with pytest.raises(InputError, match="not a JSON object"):
        Dataset.open(uri)


@pytest.mark.usefixtures("s3")
def test_what_is_not_there_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MDSREC_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"^dataset s3://test-bucket/nothing: has no manifest.json"):
        Dataset.open(f"s3://{BUCKET}/nothing")
    with pytest.raises(InputError, match=r"^s3://no-such-bucket/d: no such bucket; create it"):
        Dataset.open("s3://no-such-bucket/d")
    with pytest.raises(InputError, match=r"no such bucket"):
        prepare("synthetic", "s3://no-such-bucket/d", **SIZES)


def test_credentials_that_are_refused_are_not_shown(remote, s3, caplog) -> None:
    uri, _ = remote
    with s3.checking_credentials(), pytest.raises(InputError) as caught:
        Dataset.open(uri)
    said = str(caught.value) + caplog.text
    assert said.startswith(f"{uri}: cannot be read (manifest.json): access denied; check that the credentials")
    assert SECRET not in said
    assert KEY not in said
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("uri", [f"s3://{KEY}:{SECRET}@bucket/d", f"s3://bucket/d?X-Amz-Signature={SECRET}"])
def test_uris_that_hold_credentials_are_not_shown(uri) -> None:
    with pytest.raises(InputError, match="holds credentials") as caught:
        Dataset.open(uri)
    assert SECRET not in str(caught.value)


def test_what_a_service_says_is_shown_without_credentials(monkeypatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "very-private")
    said = object_store._cause("odd\n  very-private; AWSAccessKeyId=AKIA123 signature: abc/def plain")
    assert said.startswith("odd ***; AWSAccessKeyId=*** signature: *** plain; check")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://host/d", "scheme 'http' is not supported"),
        ("S3://bucket/d", "scheme 'S3' is not supported"),
        ("s3://bucket", "names a whole bucket"),
        ("s3:///d", "is no bucket name"),
        ("s3://Bucket/d", "is no bucket name"),
        ("s3://bucket/a/../d", "is refused"),
        ("s3://bucket/a//d", "is refused"),
        ("s3://bucket/a b", "is refused"),
        ("s3://bucket:9000/d", "holds credentials, a port"),
    ],
)
def test_uris_that_are_not_accepted(uri, message) -> None:
    with pytest.raises(InputError, match=message):
        Dataset.open(uri)


def test_uris_that_are_accepted() -> None:
    assert check_uri("s3://bucket/a/b/") == ("s3", "bucket", "a/b")
    assert check_uri("gs://my.bucket-1/d_1") == ("gs", "my.bucket-1", "d_1")


@pytest.mark.long
def test_a_service_that_does_not_answer(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("MDSREC_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="the service cannot be reached; check the network, and AWS_ENDPOINT_URL"):
        Dataset.open("s3://bucket/d")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{KEY}:{SECRET}@host")
    with pytest.raises(InputError, match="without credentials") as caught:
        Dataset.open("s3://bucket/d")
    assert SECRET not in str(caught.value)


def test_nothing_finished_is_overwritten(remote, s3) -> None:
    uri, key = remote
    before = {name: s3.read(name) for name in s3.names(key)}
    with pytest.raises(InputError, match="holds a finished dataset, which is never replaced"):
        prepare("synthetic", uri, **SIZES, overwrite=True)
    other = prepare("synthetic", str(cache_folder() / "other"), **(SIZES | {"seed": 1})).folder
    with pytest.raises(InputError, match="holds another finished folder"):
        published(other, uri)
    assert other.exists()
    assert {name: s3.read(name) for name in s3.names(key)} == before


def test_the_same_folder_may_be_published_again(remote, s3, content) -> None:
    uri, _ = remote
    shutil.copytree(content[1].folder, cache_folder() / "again")
    (cache_folder() / "again" / "manifest.json").write_bytes(content[0]["manifest.json"])
    published(cache_folder() / "again", uri)
    assert {method for method, _ in s3.requests} == {"GET", "HEAD"}
    assert Dataset.open(uri).folder.parent == cache_folder()


def test_an_interrupted_upload_is_no_dataset_and_can_be_repeated(s3, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MDSREC_CACHE", str(tmp_path))
    uri = f"s3://{BUCKET}/interrupted"
    upload = ObjectFolder.upload

    def broken(self, file: Path, name: str) -> str:
        if name == "users.parquet":
            raise InputError("the service went away")
        return upload(self, file, name)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectFolder, "upload", broken)
        with pytest.raises(InputError, match="went away"):
            prepare("synthetic", uri, **SIZES)
    assert s3.names("interrupted/")
    with pytest.raises(InputError, match=r"has no manifest.json"):
        Dataset.open(uri)
    prepare("synthetic", uri, **SIZES).verify_fingerprint()


def test_publishing_ends_with_the_manifest_and_needs_no_download(s3, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MDSREC_CACHE", str(tmp_path))
    s3.requests.clear()
    prepare("synthetic", f"s3://{BUCKET}/order", **SIZES)
    written = [path for method, path in s3.requests if method == "PUT"]
    assert [path.rpartition("/")[2] for path in written[-2:]] == ["objects.json", "manifest.json"]
    read = {path for method, path in s3.requests if method == "GET"}
    assert read <= {f"/{BUCKET}/order/manifest.json", f"/{BUCKET}"}
    assert not any((tmp_path / "work").glob("order-*[!k]"))


def test_a_full_disk_is_named_and_nothing_stays(remote, monkeypatch) -> None:
    uri, _ = remote
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1000))
        with pytest.raises(InputError, match=r"do not fit in .* \(1,000 free\); free space there, or set MDSREC_CACHE"):
            Dataset.open(uri)

    def full(*_arguments) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ObjectFolder, "download", full)
        with pytest.raises(InputError, match=r"cannot be written .No space left on device.; free space"):
            Dataset.open(uri)
    assert nothing_cached()


def test_large_objects_come_in_ranges_in_order(s3, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(object_store, "_RANGE_BYTES", 1 << 16)
    data = np.random.default_rng(0).integers(0, 256, (1 << 21) + 5, np.uint8).tobytes()
    (tmp_path / "in").write_bytes(data)
    folder = ObjectFolder(f"s3://{BUCKET}/large")
    sent = folder.upload(tmp_path / "in", "a/b.bin")
    with (tmp_path / "out").open("wb") as sink:
        assert folder.download("a/b.bin", len(data), sink) == sent
    assert (tmp_path / "out").read_bytes() == data == s3.read("large/a/b.bin")
