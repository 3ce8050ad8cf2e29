"""The report document as one HTML file: no network, works offline, on a phone, in the dark and on paper."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from terazi.dtypes import TYPES
from terazi.figures import size, three_digits
from terazi.report.charts import Point, chart
from terazi.search.limits import figure
from terazi.search.variants.family import named_precision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from terazi.report.charts import Chart

__all__ = ["page"]

_Values = dict[str, Any]
_PRECISION = {
    "ultra-low": "ultra-low precision (1–2 bit)",
    "low": "low precision (3–4 bit)",
    "medium": "medium precision (5–8 bit)",
    "full": "full precision (16–32 bit)",
    "exact": "exact",
}


def page(document: Mapping[str, Any]) -> str:
    """Render what `terazi.report.document` returns. Every text in it is escaped."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {
        "bytes": _bytes,
        "number": _number,
        "percent": _percent,
        "saving": _saving,
        "precision": lambda level: _PRECISION[level],
        "class_of": _class_of,
        "day": lambda text: f"{text[:10]} {text[11:16]} UTC",
    }
    script = _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    variants: list[_Values] = document["variants"]
    return environment.from_string(_resource("page.html.j2")).render(
        d=document,
        title=_title(document),
        best=next((v for v in variants if v["status"] == "pick" and document["recommendation"]), None),
        charts=[drawn for drawn in _charts(document) if drawn],
        columns=_columns(variants),
        levels=[level for level in _PRECISION if any(v["precision"] == level for v in variants)],
        graphs=_graphs(variants),
        prompts=list(_prompts(variants)),
        model_facts=list(_model_facts(document["model"])),
        device_facts=list(_device_facts(document["device"])),
        style=Markup(_resource("page.css")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def _resource(name: str) -> str:
    return (files("terazi.report") / name).read_text(encoding="utf-8")


def _title(document: Mapping[str, Any]) -> str:
    """What the user calls the model, and what for."""
    name = PurePath(document["model"]["path"]).name.removesuffix(".gguf")
    if not document["recommendation"]:
        return f"{name}: variants compared"
    return f"{name} for {document['use_case']['title'].lower()} on {document['device']['title']}"


# Columns that not every report has

# Figures of the machine that measured: marked where they tell nothing of the device.
_TIMES = ("decode_speed", "prefill_speed", "latency", "load_time", "peak_memory")


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    value: Callable[[_Values], float | None]
    text: Callable[[_Values], str]
    error: Callable[[_Values], str] = lambda _: ""
    estimated: Callable[[_Values], bool] = lambda _: False


def _columns(variants: Sequence[_Values]) -> list[_Column]:
    """The measured columns that at least one variant has a figure for."""

    def of(metric: str, title: str, text: Callable[[float], str], scale: float = 1.0) -> _Column:
        def value(variant: _Values) -> float | None:
            if variant.get(metric) is not None:
                return variant[metric]
            found = variant["measurements"].get(metric)
            return found["value"] if found else None

        def shown(variant: _Values) -> str:
            number = value(variant)
            if number is None:
                return "–"
            return text(number * scale) + (_mark(variant) if metric in _TIMES else "")

        def error(variant: _Values) -> str:
            found = variant["measurements"].get(metric)
            if not found or not found["uncertainty"]:
                return ""
            return (
                f"± {found['uncertainty'] * 100:.1f}"
                if text is _percent
                else f"± {_number(found['uncertainty'] * scale, 1)}"
            )

        return _Column(title, value, shown, error)

    def there(variant: _Values) -> float | None:
        return variant["device_speed"]["value"] if variant["device_speed"] else None

    speed = _Column(
        "tokens/s on the device",
        there,
        lambda v: "–" if there(v) is None else _number(there(v), 2 if v["device_speed"]["estimated"] else 3),
        estimated=lambda v: bool(v["device_speed"] and v["device_speed"]["estimated"]),
    )
    energy = _Column(
        "J per token",
        lambda v: v["energy"],
        lambda v: "–" if v["energy"] is None else _number(v["energy"], 2),
        estimated=lambda v: v["energy"] is not None,
    )
    columns = [
        of("agreement", "Same first choice", _percent),
        of("kl_divergence", "KL divergence", lambda x: _number(x, 2)),
        of("cosine", "Cosine", lambda x: _number(x, 4)),
        *([speed] if any(v["device_speed"] and v["device_speed"]["estimated"] for v in variants) else []),
        of("decode_speed", "tokens/s here", lambda x: _number(x, 3)),
        _Column("Memory", lambda v: v["memory_needed"], lambda v: _bytes(v["memory_needed"])),
        energy,
        of("prefill_speed", "prompt tokens/s here", lambda x: _number(x, 3)),
        of("perplexity", "Perplexity", lambda x: _number(x, 3)),
        of("latency", "ms per sentence here", lambda x: _number(x, 2), 1e3),
        _Column(
            "95 % within, ms", _slow, lambda v: "–" if _slow(v) is None else _number(_slow(v), 2) + _mark(v)
        ),
        of("rank_correlation", "Order kept", lambda x: _number(x, 4)),
        of("load_time", "Load, s", lambda x: _number(x, 2)),
        of("peak_memory", "Peak memory here", _bytes),
    ]
    return [column for column in columns if any(column.value(variant) is not None for variant in variants)]


def _mark(variant: _Values) -> str:
    """Point to the caveat on times that tell nothing of the device."""
    return "" if variant["representative"] else " *"


def _slow(variant: _Values) -> float | None:
    """Milliseconds within which 95 of 100 sentences were done."""
    found = variant["measurements"].get("latency")
    seconds = found and found["conditions"].get("percentile_95")
    return seconds * 1e3 if seconds else None


# Pictures


def _charts(document: Mapping[str, Any]) -> Iterator[Chart | None]:
    """Quality against size, and against speed; quality is what most people read at once."""
    variants = [v for v in document["variants"] if v["ran"]]
    if all(v["cosine"] is not None for v in variants):
        quality, y_title = "cosine", "Cosine to the reference (higher is better)"
        scale = 1.0
    elif all(v["agreement"] is not None for v in variants):
        quality, y_title = "agreement", "Same first choice as the reference, % (higher is better)"
        scale = 100.0
    else:
        return

    def points(x: Callable[[_Values], float], variants: Sequence[_Values]) -> list[Point]:
        compared = not document["recommendation"]
        return [
            Point(
                label=v["label"],
                x=x(v),
                y=v[quality] * scale,
                kind="fits" if compared and v["status"] == "pick" else v["status"],
                group=v["precision"],
                note=f"{v['label']}: {_bytes(v['size'])}, {_number(v[quality] * scale, 3)}"
                + ("" if scale == 1 else " %"),
                source=v["source"],
            )
            for v in variants
        ]

    yield chart(
        points(lambda v: v["size"] / 1e6, variants),
        title="Quality and size",
        x_title="File size, MB (smaller is better)",
        y_title=y_title,
        smaller_x_is_better=True,
    )
    if timed := [v for v in variants if v["device_speed"]]:
        estimated = any(v["device_speed"]["estimated"] for v in timed)
        yield chart(
            points(lambda v: v["device_speed"]["value"], timed),
            title="Quality and speed",
            x_title="Tokens/s, "
            + ("estimated for the device" if estimated else "measured")
            + " (more is better)",
            y_title=y_title,
            smaller_x_is_better=False,
        )


# Operators of ONNX graphs


def _graphs(variants: Sequence[_Values]) -> _Values | None:
    """Count operators by name: in the export before fusion, and in every graph. None without any.

    Where there are several columns, operators that are as many in all of them are left out.
    """
    made = [v for v in variants if v["operators"]]
    if not made:
        return None
    exported = next((v["exported"] for v in made if v["exported"]), None)
    columns = ([("exported", exported)] if exported else []) + [(v["label"], v["operators"]) for v in made]
    names = dict.fromkeys(name for _, operators in columns for name in operators)
    rows = [(name, [operators.get(name, 0) for _, operators in columns]) for name in names]
    rows = [row for row in rows if len(columns) == 1 or len(set(row[1])) > 1]
    return {
        "titles": [title for title, _ in columns],
        "rows": sorted(rows, key=lambda row: (-max(row[1]), row[0])),
        "totals": [sum(operators.values()) for _, operators in columns],
    }


# Answers


def _prompts(variants: Sequence[_Values]) -> Iterator[_Values]:
    """Group the sample answers by prompt, each split into what the source says too and the rest."""
    source = next((v for v in variants if v["source"]), None)
    texts = dict.fromkeys(sample["prompt"] for v in variants for sample in v["samples"])
    ordered = [*([source] if source else []), *(v for v in variants if v is not source)]
    for text in texts:
        reference = _answer(source, text) if source else None
        answers = []
        for variant in ordered:
            answer = _answer(variant, text)
            if answer is None:
                continue
            shared = 0 if variant is source else _shared(answer, reference or "")
            answers.append(
                {
                    "label": variant["label"],
                    "status": variant["status"],
                    "source": variant["source"],
                    "shared": answer[:shared],
                    "own": answer[shared:],
                    "same_as_source": answer == reference,
                }
            )
        yield {"text": text, "answers": answers}


def _answer(variant: _Values, prompt: str) -> str | None:
    return next((s["answer"] for s in variant["samples"] if s["prompt"] == prompt), None)


def _shared(answer: str, reference: str) -> int:
    """Length of the common start, cut back to the end of a word."""
    length = next(
        (i for i, (a, b) in enumerate(zip(answer, reference, strict=False)) if a != b),
        min(len(answer), len(reference)),
    )
    if length in (len(answer), len(reference)):
        return length
    return answer.rfind(" ", 0, length) + 1


# Facts


def _model_facts(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Name", model["name"]
    yield "Architecture", f"{model['architecture']}, {model['parameters'] / 1e6:,.4g} M weights"
    yield (
        "Kind",
        {"base": "base", "instruct": "instruction-tuned", "embedding": "embedding"}.get(
            model["variant"], "not stated"
        ),
    )
    yield "Licence", model["license"] or "not stated: check before you ship it"
    yield "Context", f"{model['context_length']:,} tokens"
    yield "File", f"{model['path']} ({model['format']})"
    yield "SHA-256", model["digest"]


def _device_facts(device: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    memory = device["memory"]
    yield "Processor", device["cpu"]["name"]
    yield "Instruction sets", ", ".join(device["cpu"]["instruction_sets"]) or "not stated"
    yield "Memory", f"{_bytes(memory['total'])}, {_bytes(memory['usable'])} of it for a model"
    yield "Bandwidth", f"{memory['bandwidth'] / 1e9:.1f} GB/s ({memory['source']})"
    if device["accelerators"]:
        yield "Accelerators", ", ".join(a["name"] for a in device["accelerators"])
    yield "Engines", ", ".join(device["runtimes"])
    if device["power"]:
        yield "Power", f"{device['power']['watts']:g} W ({device['power']['source']})"
    if device["limits"]["reason"]:
        yield "Limits", device["limits"]["reason"]


# Formats


def _bytes(value: float) -> str:
    return size(value, three_digits)


def _number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "–"
    return figure(value, digits)


def _class_of(type: str, format: str) -> str:
    """Return the precision class of a tensor type in a format."""
    if format != "gguf":
        return named_precision(type)
    return TYPES[type].precision if type in TYPES else "exact"


def _percent(value: float) -> str:
    return f"{value * 100:.1f} %"


def _saving(value: float | None) -> str:
    """A saving of 0.72 is shown as −72 %."""
    if value is None:
        return "–"
    return f"{'−' if value >= 0 else '+'}{abs(value) * 100:.0f} %"
