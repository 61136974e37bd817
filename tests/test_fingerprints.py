"""Inputs that tests share are restored before each test, whatever the test before has changed."""

import os
import shutil

import pytest

from tests.fingerprints import differing, fingerprints, restore


def overwrite(folder):
    (folder / "a/file").write_bytes(b"ONE")


def overwrite_and_keep_its_times(folder):
    state = (folder / "a/file").stat()
    overwrite(folder)
    os.utime(folder / "a/file", ns=(state.st_atime_ns, state.st_mtime_ns))


def file_for_a_folder(folder):
    shutil.rmtree(folder / "a")
    (folder / "a").write_bytes(b"")


def folder_for_a_file(folder):
    (folder / "b").unlink()
    (folder / "b/c").mkdir(parents=True)


def link_for_a_file(folder):
    (folder / "b").unlink()
    (folder / "b").symlink_to(folder / "a/file")


def link_for_a_folder(folder):
    shutil.move(folder / "a", folder / "elsewhere")
    (folder / "a").symlink_to(folder / "elsewhere")


def dangling_link(folder):
    (folder / "new").symlink_to(folder / "nothing")


@pytest.mark.parametrize(
    "damage",
    [
        overwrite, overwrite_and_keep_its_times, file_for_a_folder, folder_for_a_file, link_for_a_file,
        link_for_a_folder, dangling_link, shutil.rmtree,
    ],
)  # fmt: skip
def test_what_is_damaged_is_seen_and_restored(tmp_path, damage):
    here, sound = tmp_path / "here", tmp_path / "sound"
    (here / "a/empty").mkdir(parents=True)
    (here / "a/file").write_bytes(b"one")
    (here / "b").write_bytes(b"two")
    shutil.copytree(here, sound)
    untouched = (sound / "b").stat().st_mtime_ns
    before = fingerprints(here)
    damage(here)
    assert differing(before, fingerprints(here))
    restore(here, sound)
    assert fingerprints(here) == before
    assert (here / "b").stat().st_mtime_ns == untouched
