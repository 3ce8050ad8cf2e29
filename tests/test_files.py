"""Files appear whole or not at all, and never over what exists."""

import os
from contextlib import suppress

import pytest

from terazi.errors import ExistsError, NotFoundError, UsageError
from terazi.files import atomic_write, write_text


@pytest.fixture(params=["links", "no links"])
def folder(request, tmp_path, monkeypatch):
    """A directory, also as on FAT or exFAT, which have no hard links."""
    if request.param == "no links":

        def refuse(source, target):
            raise PermissionError(1, "Operation not permitted", str(source))

        monkeypatch.setattr(os, "link", refuse)
    return tmp_path


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_a_file_appears_whole(folder):
    write_text(folder / "new", "text")
    assert (folder / "new").read_text() == "text"
    assert names(folder) == ["new"]


def test_what_exists_stays_unless_forced(folder):
    write_text(folder / "file", "old")
    with pytest.raises(ExistsError):
        write_text(folder / "file", "new")
    assert (folder / "file").read_text() == "old"
    write_text(folder / "file", "new", force=True)
    assert (folder / "file").read_text() == "new"
    assert names(folder) == ["file"]


def test_what_appears_meanwhile_stays(folder):
    writing = atomic_write(folder / "file")
    writing.__enter__().write(b"ours")
    (folder / "file").write_text("theirs")
    with pytest.raises(ExistsError):
        writing.__exit__(None, None, None)
    assert (folder / "file").read_text() == "theirs"
    assert names(folder) == ["file"]


@pytest.mark.parametrize("force", [False, True])
def test_a_directory_is_not_replaced(folder, force):
    (folder / "inner").mkdir()
    with pytest.raises(UsageError, match="is a directory"):
        write_text(folder / "inner", "text", force=force)
    assert names(folder) == ["inner"]


def test_an_interrupted_file_vanishes(folder):
    with suppress(KeyboardInterrupt), atomic_write(folder / "file") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert names(folder) == []


def test_a_missing_folder_is_named(folder):
    with pytest.raises(NotFoundError, match="no such directory"):
        write_text(folder / "absent" / "file", "text")
