"""Names of stored models (``smollm2:135m-q4_k_m``) and references to models elsewhere (``hf:org/name``)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from terazi.errors import UsageError

__all__ = ["SCHEMES", "Name", "parse_name", "split_source", "suggest"]

SCHEMES = ("hf", "pypi", "ollama", "oci", "https", "http", "file")
"""What a source reference may start with, before the colon."""

_SEGMENT = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,78}[a-z0-9_])?")
_TAG = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,126}[a-z0-9_])?")
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")  # file names that Windows reserves
_RULE = "letters, digits, '.', '_' and '-', such as smollm2:135m or org/model:q4_k_m"


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """``model:tag``; ``model`` may have up to four segments parted by ``/``. Always lower case."""

    model: str
    tag: str

    def __str__(self) -> str:
        return f"{self.model}:{self.tag}"


def parse_name(text: str) -> Name:
    """Read ``model[:tag]`` (tag defaults to ``latest``), ignoring case.

    Names become paths, so only a safe alphabet passes. Raises `UsageError` for anything else.
    """
    model, _, tag = text.lower().partition(":")
    segments = model.split("/")
    valid = (
        len(segments) <= 4
        and all(_SEGMENT.fullmatch(part) and not _DEVICES.fullmatch(part) for part in segments)
        and _TAG.fullmatch(tag or "latest")
        and not _DEVICES.fullmatch(tag)
        and ".." not in text
        and not text.endswith(":")
    )
    if not valid:
        shown = repr(text if len(text) <= 80 else text[:77] + "...")
        raise UsageError(f"{shown} is not a model name", hint=f"use {_RULE}")
    return Name(model, tag or "latest")


def split_source(reference: str) -> tuple[str, str] | None:
    """Split ``scheme:rest`` when the scheme is one of `SCHEMES`; None when it is a name or a path.

    The rest of a web address keeps its scheme.
    """
    scheme, colon, rest = reference.partition(":")
    if not colon or scheme.lower() not in SCHEMES or not rest:
        return None
    scheme = scheme.lower()
    if scheme in ("http", "https"):
        return ("https" if scheme == "https" else "http", reference) if rest.startswith("//") else None
    return scheme, rest


def suggest(model: str, tag: str = "") -> Name:
    """Make a valid name out of any words: other characters become ``-``."""
    parts = [_clean(part, 80) for part in model.split("/")]
    return parse_name(
        f"{'/'.join([part for part in parts if part][-4:]) or 'model'}:{_clean(tag, 120) or 'latest'}"
    )


def _clean(text: str, limit: int) -> str:
    words = re.sub(r"[^a-z0-9._-]+", "-", text.lower())
    clean = re.sub(r"\.{2,}", ".", words)[:limit].strip("._-")
    return f"{clean}-model" if _DEVICES.fullmatch(clean) else clean
