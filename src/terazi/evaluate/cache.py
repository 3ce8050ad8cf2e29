"""What was measured before: JSON per question, and the large files of reference log-probabilities."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terazi.evaluate.measurement import Measurement
from terazi.files import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Cache"]

# Raised when a definition changes, so that old numbers are not taken for new ones.
_EDITION = 1
_LARGE_FILES_LIMIT = 4 << 30


class Cache:
    """A folder of answers. A question is a mapping of plain values; its digest names the file.

    Damaged files count as absent. By default in ``$TERAZI_HOME/cache`` or ``~/.terazi/cache``.
    """

    def __init__(self, directory: Path | str | None = None) -> None:
        home = Path(os.environ.get("TERAZI_HOME") or Path.home() / ".terazi")
        self.directory = Path(directory) if directory is not None else home / "cache"

    def path(self, question: Mapping[str, Any], suffix: str) -> Path:
        """Return where the answer to a question is or will be; makes the folder."""
        text = json.dumps({"edition": _EDITION, **question}, sort_keys=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        return self.directory / (hashlib.sha256(text.encode()).hexdigest()[:40] + suffix)

    def read(self, question: Mapping[str, Any]) -> list[Measurement] | None:
        """Return earlier measurements, or None."""
        try:
            found = json.loads(self.path(question, ".json").read_text())
            return [Measurement.from_dict(values) for values in found["measurements"]]
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, question: Mapping[str, Any], measurements: Sequence[Measurement]) -> None:
        """Keep measurements for `read`."""
        kept = {"question": dict(question), "measurements": [found.to_dict() for found in measurements]}
        write_text(self.path(question, ".json"), json.dumps(kept, indent=1), force=True)

    def trim(self, keep: Path) -> None:
        """Delete the log-probabilities used longest ago until they take less than 4 GiB; never ``keep``."""
        files = sorted(self.directory.glob("*.kld"), key=lambda file: file.stat().st_mtime, reverse=True)
        total = 0
        for file in files:
            total += file.stat().st_size
            if total > _LARGE_FILES_LIMIT and file != keep:
                file.unlink(missing_ok=True)
