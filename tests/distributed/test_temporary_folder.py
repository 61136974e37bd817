"""A long folder for temporary files is replaced by /tmp, with a note, before any socket is made in it."""

import os
import socket
import tempfile

import pytest

from contracts.errors import InputError
from distributed.ray import temporary_folder
from distributed.ray.temporary_folder import LONGEST_FOLDER, keep_sockets_short


@pytest.fixture(autouse=True)
def unchanged(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_long_folder_is_replaced_and_named(monkeypatch, capsys, variable):
    folder = "/tmp/" + "x" * 95
    monkeypatch.setenv(variable, folder)
    keep_sockets_short()
    assert os.environ[variable] == tempfile.gettempdir() == "/tmp"
    assert capsys.readouterr().err == (
        f"note: {variable}={folder}: at most {LONGEST_FOLDER} bytes leave room for the names of sockets; "
        "temporary files go to /tmp\n"
    )


def test_the_longest_folder_that_is_kept_has_room_for_rays_sockets(tmp_path, monkeypatch, capsys):
    folder = "/tmp/" + "x" * (LONGEST_FOLDER - 5)
    monkeypatch.setenv("TMPDIR", folder)
    keep_sockets_short()
    assert os.environ["TMPDIR"] == folder
    assert capsys.readouterr().err == ""
    # A path of that length can be bound, and one byte more cannot.
    length = len(folder + temporary_folder._LONGEST_NAME) - len(str(tmp_path)) - 1
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / ("s" * length)))
    with socket.socket(socket.AF_UNIX) as listener, pytest.raises(OSError, match="too long"):
        listener.bind(str(tmp_path / ("s" * (length + 1))))


def test_without_a_short_folder_the_variable_is_refused(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/tmp/" + "x" * 95)
    monkeypatch.setattr(temporary_folder, "_SHORT", "/proc/none")
    with pytest.raises(InputError, match=r"^TMPDIR=/tmp/x+: at most .* set TMPDIR to a shorter folder"):
        keep_sockets_short()
