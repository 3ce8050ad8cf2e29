"""The table of measured variants, as `optimize` and `compare` print it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from terazi.cli.output import size, write_table

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["show"]


def show(report: Mapping[str, Any]) -> None:
    """Print the variants of a report document, best first."""
    rows = report["variants"]
    columns = {
        "variant": lambda v: v["label"] + (" (source)" if v["source"] else ""),
        "size": lambda v: size(v["size"]) if v["size"] else "",
        "vs 16-bit": lambda v: f"{-v['saved_16bit']:+.0%}" if v["size"] else "",
        "agreement": lambda v: _number(v["agreement"], ".1%"),
        "KL": lambda v: _number(v["kl_divergence"], ".3f"),
        "cosine": lambda v: _number(v["cosine"], ".4f"),
        "tokens/s there": _there,
        "tokens/s here": lambda v: _here(v, _rate(_measured(v, "decode_speed"))),
        "order kept": lambda v: _number(_measured(v, "rank_correlation"), ".4f"),
        "ms/sentence here": lambda v: _here(v, _latency(v)),
        "95 %": lambda v: _here(v, _latency(v, "percentile_95")),
        "reads tokens/s": lambda v: _here(v, _reading(v)),
        "memory": lambda v: size(v["memory_needed"]) if v["size"] else "",
        "score": lambda v: _number(v["score"], ".2f"),
        "verdict": _verdict,
    }
    shown = {name: [cell(row) for row in rows] for name, cell in columns.items()}
    kept = {name: cells for name, cells in shown.items() if any(cells)}
    write_table(
        tuple(kept),
        list(zip(*kept.values(), strict=True)),
        numeric=[name for name in kept if name not in ("variant", "verdict")],
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _rate(value: float | None) -> str:
    return _number(value, ",.0f" if value is not None and value >= 100 else ".3g")


def _measured(variant: Mapping[str, Any], metric: str) -> float | None:
    found = variant["measurements"].get(metric)
    return found["value"] if found else None


def _there(variant: Mapping[str, Any]) -> str:
    """An estimate for another device; empty when the device is this one."""
    speed = variant["device_speed"]
    return f"~{round(speed['value']):,} est." if speed and speed["estimated"] else ""


def _verdict(variant: Mapping[str, Any]) -> str:
    if variant["status"] == "pick":
        return "recommended"
    if variant["why"]:
        return "; ".join(variant["why"])
    return f"{variant['beaten_by']} is as good in all" if variant["beaten_by"] else ""


def _reading(variant: Mapping[str, Any]) -> str:
    """Tokens/s that an encoder reads; models that generate show that instead."""
    if _measured(variant, "decode_speed") is not None:
        return ""
    return _number(_measured(variant, "prefill_speed"), ",.0f")


def _latency(variant: Mapping[str, Any], percentile: str = "") -> str:
    """Milliseconds per sentence: the median, or a percentile."""
    found = variant["measurements"].get("latency")
    seconds = found and (found["conditions"].get(percentile) if percentile else found["value"])
    return "" if seconds is None else f"{seconds * 1e3:.1f}"


def _here(variant: Mapping[str, Any], text: str) -> str:
    """Mark a time that tells nothing of the device, of which a note speaks."""
    return f"{text}*" if text and not variant["representative"] else text
