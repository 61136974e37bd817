"""Files and folders that are replaced are on disk, under their name, before anything relies on them."""

import shutil

from storage.durable_files import replace_folder, write_text
from tests.storage.disk import Disk


def test_written_text_is_on_disk_with_its_name(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    for content in ("one", "another"):
        write_text(tmp_path / "file", content)
        assert disk.read(tmp_path / "file") == content.encode()


def test_an_old_folder_goes_when_the_new_one_has_its_name_on_disk(tmp_path, monkeypatch):
    disk, seen, original = Disk(monkeypatch), [], shutil.rmtree
    for name, content in (("final", "old"), ("aside", "new")):
        (tmp_path / name).mkdir()
        write_text(tmp_path / name / "file", content)
    new = (tmp_path / "aside").stat().st_ino

    def rmtree(path, **options):
        if path.exists():
            seen.append(((path / "file").read_text(), disk.names(tmp_path)["final"]))
        original(path, **options)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    replace_folder(tmp_path / "aside", tmp_path / "final")
    assert seen == [("old", new)]
    assert [path.name for path in tmp_path.iterdir()] == ["final"]
