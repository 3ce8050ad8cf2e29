"""Report files on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from terazi.files import write_text
from terazi.report.html import page

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["write_report"]


def write_report(
    report: Mapping[str, Any], directory: Path | str, *, force: bool = False
) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.json`` of a `document` into a directory and return their paths.

    Raises `ExistsError` when one exists and ``force`` is false.
    """
    folder = Path(directory)
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    html = write_text(folder / "report.html", page(report), force=force)
    return html, write_text(folder / "report.json", text, force=force)
