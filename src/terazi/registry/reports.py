"""Reports kept in the store, one folder each below ``reports/``, for `terazi serve` to show."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from terazi.files import write_text
from terazi.registry.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KeptReport", "keep_report", "kept_reports"]

_LIMIT = 16 << 20  # bytes of one report.json; real ones take some 100 kB
_ASKED = ("device", "use_case", "limits", "context")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptReport:
    """A report in the store. ``facts`` are what a list shows of its report.json, as plain JSON values."""

    name: str
    page: Path
    facts: Mapping[str, Any]


def keep_report(document: Mapping[str, Any], page: str, store: Store | None = None) -> Path:
    """Keep a report's document and its HTML page; a later study of the same question replaces it.

    Returns the folder. Raises `OSError` when the store cannot be written.
    """
    model, device, use_case = (document[key] for key in ("model", "device", "use_case"))
    asked = json.dumps([model["digest"], *(document[key] for key in _ASKED)], sort_keys=True)
    words = f"{PurePath(model['path']).name}-{device['name']}-{use_case['name']}"
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", words).strip(".-")[:80]
    folder = (store or Store()).root / "reports" / f"{stem}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "report.html", page, force=True)
    write_text(folder / "report.json", json.dumps(document, ensure_ascii=False) + "\n", force=True)
    return folder


def kept_reports(store: Store | None = None) -> list[KeptReport]:
    """Return the reports in the store, the newest first. Folders without a readable report are left out."""
    root = (store or Store()).root / "reports"
    found = []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        page, facts = folder / "report.html", _facts(folder / "report.json")
        if facts is not None and page.is_file():
            found.append(KeptReport(name=folder.name, page=page, facts=facts))
    return sorted(found, key=lambda report: str(report.facts["created"]), reverse=True)


def _facts(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > _LIMIT:
            return None
        document = json.loads(path.read_bytes())
        recommended = document["recommendation"] or {}
        pick = next((v for v in document["variants"] if v["label"] == recommended.get("pick")), None)
        return {
            "created": document["created"],
            "model": document["model"]["path"],
            "model_digest": document["model"]["digest"],
            "license": document["model"]["license"],
            "device": document["device"]["title"],
            "use_case": document["use_case"]["title"],
            "variants": sum(bool(variant["ran"]) for variant in document["variants"]),
            "pick": pick["label"] if pick else None,
            "pick_size": pick["size"] if pick else None,
            "saved": pick["saved_16bit"] if pick else None,
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
