"""Files on disk: atomic writing and digests."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from terazi.errors import ExistsError, NotFoundError, TeraziError, UsageError
from terazi.figures import size

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["atomic_write", "check_space", "sha256", "write_bytes", "write_text"]

_CHUNK = 1 << 22


@contextmanager
def atomic_write(path: Path | str, *, force: bool = False) -> Iterator[IO[bytes]]:
    """Yield a binary file that becomes ``path`` when the block ends well, and vanishes when it does not.

    The bytes go to a temporary name in the same directory, are flushed to the disk and renamed, so that no
    reader ever sees half a file. Raises `ExistsError` when ``path`` exists and ``force`` is false.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path}: is a directory", hint="name a file in it")
    if path.exists() and not force:
        raise ExistsError(path)
    if not path.parent.is_dir():
        raise NotFoundError(f"{path.parent}: no such directory", hint="create it first")
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    try:  # named before it is created, so that an interruption at any moment removes it
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not force:
            _claim(temporary, path)
        temporary.replace(path)
    except FileExistsError:
        raise ExistsError(path) from None
    finally:
        temporary.unlink(missing_ok=True)


def _claim(temporary: Path, path: Path) -> None:
    """Give a finished file its name, unless somebody took that meanwhile: linking fails then, not renaming.

    The caller's rename of two links to one file changes nothing. File systems without links (FAT, exFAT, some
    network shares) get an empty file first, which fails as well when there is one.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        path.open("xb").close()


def check_space(directory: Path | str, nbytes: int, *, estimated: bool = False) -> None:
    """Raise `TeraziError` when the disk of ``directory`` has fewer free bytes than what is to be written."""
    directory = Path(directory)
    if not directory.is_dir():
        return
    free = shutil.disk_usage(directory).free
    if free < nbytes:
        raise TeraziError(
            f"{directory}: {'about ' if estimated else ''}{size(nbytes)} are needed, {size(free)} are free",
            hint="make room or choose another output directory",
        )


def write_bytes(path: Path | str, data: bytes, *, force: bool = False) -> Path:
    """Write a whole file atomically and return its path."""
    with atomic_write(path, force=force) as file:
        file.write(data)
    return Path(path)


def write_text(path: Path | str, text: str, *, force: bool = False) -> Path:
    """Write a whole UTF-8 file atomically and return its path."""
    return write_bytes(path, text.encode(), force=force)


def sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, reading it in pieces."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
