"""Licences of models and whether they suit an intended use, from a small table of common ones."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

__all__ = ["USES", "LicenseCheck", "Use", "Verdict", "check_license"]

Use = Literal["commercial", "redistribution", "research", "personal"]
Verdict = Literal["yes", "conditions", "no", "unknown"]

USES: tuple[Use, ...] = get_args(Use)


@dataclass(frozen=True, slots=True, kw_only=True)
class LicenseCheck:
    """Whether ``license`` allows ``use``; ``reason`` says it in words. An orientation, no legal advice."""

    license: str | None
    title: str
    use: Use
    verdict: Verdict
    reason: str


@cache
def _table() -> dict[str, dict[str, Any]]:
    return tomllib.loads(files("terazi.model").joinpath("licenses.toml").read_text("utf-8"))


def check_license(license: str | None, use: Use) -> LicenseCheck:
    """Look a licence up by its Hugging Face or SPDX identifier. What is not in the table is ``unknown``."""
    key = (license or "").strip().lower().removesuffix("-only").removesuffix("-or-later")
    entry = _table().get(key)
    if entry is None:
        reason = (
            "the model does not state its licence: ask its makers"
            if not key or key in ("other", "unknown")
            else "not in Terazi's table: read the licence itself"
        )
        return LicenseCheck(
            license=license, title=license or "not stated", use=use, verdict="unknown", reason=reason
        )
    verdict = entry.get(use, "yes")
    return LicenseCheck(license=key, title=entry["title"], use=use, verdict=verdict, reason=entry["note"])
