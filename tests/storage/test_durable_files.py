"""The one rule for writing: whole or not there, for readers, after errors, after kills and after a loss of power."""

from __future__ import annotations

import ast
import errno
import os
from pathlib import Path

import numpy as np
import pytest

from storage.array_file import map_array, save_array
from storage.durable_files import is_temporary, replacing, replacing_folder, write_text
from tests.packages import PRODUCT, ROOT
from tests.storage.disk import Disk


def _write_half(path: Path) -> None:
    path.write_bytes(b"half")
    raise OSError(errno.ENOSPC, "full")


@pytest.mark.parametrize("one_writer", [False, True])
def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_writer: bool) -> None:
    disk, path = Disk(monkeypatch), tmp_path / "folder/file"
    for content in (b"one", b"another"):
        before = path.read_bytes() if path.exists() else None
        with replacing(path, one_writer=one_writer) as temporary:
            temporary.write_bytes(content)
            assert is_temporary(temporary.name)
            assert (path.read_bytes() if path.exists() else None) == before
        assert path.read_bytes() == disk.read(path) == content
    with pytest.raises(OSError, match="full"), replacing(path, one_writer=one_writer) as temporary:
        _write_half(temporary)
    assert path.read_bytes() == b"another"
    assert list(path.parent.iterdir()) == [path]


def test_an_array_and_a_text_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    save_array(tmp_path / "array.npy", np.arange(5))
    write_text(tmp_path / "text", "é")
    assert map_array(tmp_path / "array.npy").tolist() == [0, 1, 2, 3, 4]
    assert disk.read(tmp_path / "array.npy") == (tmp_path / "array.npy").read_bytes()
    assert disk.read(tmp_path / "text") == "é".encode()


def test_a_mapped_array_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, path = Disk(monkeypatch), tmp_path / "mapped.npy"
    with replacing(path) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.int64, shape=(3,))
        array[:] = 7
        array.flush()
    assert disk.read(path) == path.read_bytes()
    assert map_array(path).tolist() == [7, 7, 7]


def test_writers_have_names_of_their_own_or_the_same_one(tmp_path: Path) -> None:
    with replacing(tmp_path / "file") as first, replacing(tmp_path / "file") as second:
        assert first != second
        for temporary in (first, second):
            temporary.touch()
    with replacing(tmp_path / "file", one_writer=True) as first:
        first.touch()
    with replacing(tmp_path / "file", one_writer=True) as second:
        second.touch()
    assert first == second


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_is_replaced_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    disk, folder, replace = Disk(monkeypatch), tmp_path / "folder", os.replace
    if there:
        folder.mkdir()
        (folder / "old").touch()

    def checked(source: Path, target: Path) -> None:
        if target == folder:
            for file in (source / "file", source / "inner/file"):
                assert disk.read(file) == file.read_bytes() == b"content"
            assert "inner" in disk.names(source)
        replace(source, target)

    monkeypatch.setattr(os, "replace", checked)
    with replacing_folder(folder) as temporary:
        (temporary / "inner").mkdir()
        for file in (temporary / "file", temporary / "inner/file"):
            file.write_bytes(b"content")
        assert (folder / "old").exists() == there
    assert sorted(path.name for path in folder.iterdir()) == ["file", "inner"]
    assert "folder" in disk.names(tmp_path)
    with pytest.raises(OSError, match="full"), replacing_folder(folder) as temporary:
        _write_half(temporary / "file")
    assert sorted(path.name for path in folder.iterdir()) == ["file", "inner"]
    assert list(tmp_path.iterdir()) == [folder]


def test_folders_above_a_new_folder_are_made(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "a" / "b" / "folder") as temporary:
        (temporary / "file").touch()
    assert (tmp_path / "a" / "b" / "folder" / "file").exists()


def test_what_a_killed_writer_left_of_a_folder_goes(tmp_path: Path) -> None:
    for name in (".folder.unfinished", ".folder.partial", ".other.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    with replacing_folder(tmp_path / "folder", one_writer=True) as temporary:
        assert list(temporary.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.partial", "folder"]


def test_a_file_system_that_cannot_flush_a_folder_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(handle: int, error: int = errno.EINVAL) -> None:
        if Path(os.readlink(f"/proc/self/fd/{handle}")).is_dir():
            raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "file", "content")
    assert (tmp_path / "file").read_text() == "content"
    monkeypatch.setattr(os, "fsync", lambda handle: fsync(handle, errno.EIO))
    with pytest.raises(OSError, match=r"Input/output error"):
        write_text(tmp_path / "file", "content")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".config.yaml.unfinished", True),  # of this version and earlier ones
        (".metrics.json.0a1b2c3d.unfinished", True),
        (".block-00000.npz.5f1d7c.tmp", True),  # of earlier versions
        (".dataset.x7f3.partial", True),
        (".step-00000007.1.unfinished", True),
        ("file.unfinished", False),
        (".unfinished", False),
        (".hidden", False),
        (".tmp.npy", False),
    ],
)
def test_names_of_unfinished_files(name: str, expected: bool) -> None:
    assert is_temporary(name) == expected


def _renames(tree: ast.AST) -> int:
    """Calls of os.replace, os.rename, shutil.move and Path.rename, and of functions that make temporary folders."""
    names = {"os.replace", "os.rename", "shutil.move", "tempfile.mkdtemp", "tempfile.mkstemp"}
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return sum(call in names or call.endswith((".rename", ".hardlink_to")) for call in calls)


def test_only_storage_renames_what_it_has_written() -> None:
    found = {
        file.relative_to(ROOT).as_posix(): count
        for package in PRODUCT
        for file in (ROOT / package).rglob("*.py")
        if (count := _renames(ast.parse(file.read_text())))
    }
    assert found.pop("storage/durable_files.py") > 0
    assert found == {
        # Asks RunStorage to rename the file STOP, which the user wrote; and does it.
        "distributed/training/trainer.py": 1,
        "distributed/checkpoints/run_storage.py": 1,
        # A cache folder that lives as long as the process.
        "kernels/numba_cache.py": 1,
        # Work files of a preparation, which are not flushed to disk: they are read again only if the machine goes on.
        "data/prepare/engine/work.py": 2,
        # Moves what PyTorch wrote into a folder of its own to the temporary names of `replacing`.
        "serving/user_encoder.py": 1,
    }
