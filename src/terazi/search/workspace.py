"""Where a study keeps variants and what was found of them, so that a run that stopped goes on."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terazi.errors import ExistsError
from terazi.evaluate.measurement import Measurement
from terazi.files import write_text
from terazi.search.candidate import Sample
from terazi.search.variants.family import Contents

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Finding", "Workspace", "deliver", "variant_name"]

# Raised when what a finding holds changes its meaning.
_EDITION = 3
_MODEL_FILES = ("config.json", "model.onnx")  # a directory with one of them is a model


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of a variant: the digest of its files and what they hold, measurements, answers."""

    digest: str
    contents: Contents
    measurements: tuple[Measurement, ...]
    samples: tuple[Sample, ...]


class Workspace:
    """One folder per source and settings, by default below ``$TERAZI_HOME`` or ``~/.terazi``.

    Variants are named by their plan's digest: the same plan on the same source gives the same bytes, so what
    was measured once holds for the next run, with or without the file.
    """

    def __init__(self, source_digest: str, settings: Mapping[str, Any], root: Path | None = None) -> None:
        home = Path(os.environ.get("TERAZI_HOME") or Path.home() / ".terazi")
        key = json.dumps({"edition": _EDITION, **settings}, sort_keys=True, default=str)
        self.folder = (root or home / "work") / source_digest[:16]
        self._settings = hashlib.sha256(key.encode()).hexdigest()[:16]

    def file(self, label: str, plan_digest: str, suffix: str = ".gguf") -> Path:
        """Return where a variant is or will be; without a suffix it is a directory."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / (variant_name(label, plan_digest) + suffix)

    def read(self, plan_digest: str) -> Finding | None:
        """Return what was found of a variant before, under the same settings."""
        try:
            kept = json.loads(self._record(plan_digest).read_text())
            return Finding(
                kept["digest"],
                Contents(**kept["contents"]),
                tuple(Measurement.from_dict(values) for values in kept["measurements"]),
                tuple(Sample(**values) for values in kept["samples"]),
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, plan_digest: str, found: Finding) -> None:
        """Keep what was found of a variant."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self._record(plan_digest), json.dumps(asdict(found), indent=1), force=True)

    def tidy(self) -> None:
        """Delete the variants; what was found of them and the importance matrix stay."""
        for file in self.folder.glob("*.gguf"):
            if not file.name.startswith("importance-"):
                file.unlink(missing_ok=True)
        for directory in (path for path in self.folder.iterdir() if path.is_dir()):
            shutil.rmtree(directory)

    def _record(self, plan_digest: str) -> Path:
        return self.folder / f"{plan_digest[:32]}-{self._settings}.json"


def variant_name(label: str, plan_digest: str) -> str:
    """Name a variant's file or directory, without its suffix."""
    return f"{re.sub(r'[^A-Za-z0-9_.]+', '-', label)}-{plan_digest[:16]}"


def deliver(file: Path, target: Path) -> Path:
    """Put a finished file at ``target``, replacing what is there: by a hard link, or a copy and a rename.

    A directory is copied; it replaces only another model's directory, else `ExistsError` is raised.
    """
    partial = target.with_name(f".{target.name}.part")
    if file.is_dir():
        return _deliver_directory(file, target, partial)
    partial.unlink(missing_ok=True)
    try:
        try:
            os.link(file, partial)
        except OSError:  # another file system
            shutil.copyfile(file, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _deliver_directory(directory: Path, target: Path, partial: Path) -> Path:
    if target.exists() and not any((target / name).is_file() for name in _MODEL_FILES):
        raise ExistsError(target)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(directory, partial)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target
