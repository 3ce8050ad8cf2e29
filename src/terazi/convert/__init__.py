"""A model in another format: one module per target, and which source each of them takes."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from terazi.model import Artifact

__all__ = ["CONVERSIONS", "TARGETS", "Conversion", "check_conversion", "conversion_table", "converter"]

# Target -> module with `convert(model, output, *, force, progress, **options) -> Artifact`; imported on use.
TARGETS: dict[str, str] = {
    "gguf": "terazi.convert.gguf",
    "mlx": "terazi.convert.mlx",
    "onnx": "terazi.convert.onnx",
    "safetensors": "terazi.convert.huggingface",
}


@dataclass(frozen=True, slots=True)
class Conversion:
    """What becomes of a source in a target; ``hint`` is the next step where there is no conversion."""

    done: str
    hint: str | None = None


_NO_WAY_BACK = Conversion("no", "a graph keeps no layers to rebuild: convert what it was exported from")

# (source format, target) -> what happens.
CONVERSIONS: Mapping[tuple[str, str], Conversion] = {
    ("huggingface", "gguf"): Conversion("renamed, permuted; types kept or F32, F16, BF16"),
    ("huggingface", "mlx"): Conversion("quantized for MLX"),
    ("huggingface", "onnx"): Conversion("exported by PyTorch or onnxruntime-genai"),
    ("huggingface", "safetensors"): Conversion("in another type; GPTQ, AWQ and the like decoded"),
    ("gguf", "gguf"): Conversion("no", "`terazi quantize` makes other types of a GGUF file"),
    ("gguf", "mlx"): Conversion("decoded, then quantized for MLX"),
    ("gguf", "onnx"): Conversion("decoded, then exported"),
    ("gguf", "safetensors"): Conversion("decoded, renamed back"),
    ("mlx", "gguf"): Conversion("decoded, renamed"),
    ("mlx", "mlx"): Conversion("decoded, then quantized again"),
    ("mlx", "onnx"): Conversion("decoded, then exported"),
    ("mlx", "safetensors"): Conversion("decoded"),
    ("onnx", "gguf"): _NO_WAY_BACK,
    ("onnx", "mlx"): _NO_WAY_BACK,
    ("onnx", "onnx"): Conversion("checked and optimized"),
    ("onnx", "safetensors"): _NO_WAY_BACK,
}


def converter(target: str | None, output: Path | str) -> Callable[..., Artifact]:
    """Return the function that writes ``target``, or the format that ``output`` ends in."""
    return import_module(TARGETS[_target(target, output)]).convert


def check_conversion(
    source: str,
    target: str | None,
    output: Path | str,
    options: Iterable[str],
    names: Mapping[str, str] | None = None,
) -> None:
    """Raise `UnsupportedError` for a pair without a conversion, `UsageError` for a foreign option.

    ``names`` is what the user calls the options.
    """
    name = _target(target, output)
    found = CONVERSIONS[source, name]
    if found.hint:
        raise UnsupportedError(f"{source} does not convert to {name}", hint=found.hint)
    parameters = signature(converter(name, output)).parameters.values()
    known = [entry.name for entry in parameters if entry.kind is entry.KEYWORD_ONLY]
    known = [option for option in known if option not in ("force", "progress")]
    foreign = [option for option in options if option not in known]
    if foreign:
        names = names or {option: option for option in known + foreign}
        raise UsageError(
            f"{' and '.join(names[option] for option in foreign)}: no option of a conversion to {name}",
            hint=f"{name} takes {', '.join(names[option] for option in known if option in names)}",
        )


def _target(target: str | None, output: Path | str) -> str:
    name = target or Path(output).suffix.lstrip(".")
    if name not in TARGETS:
        raise UsageError(
            f"{target!r} is no format to convert to" if target else f"{output}: which format?",
            hint=f"pass --to with one of {', '.join(TARGETS)}",
        )
    return name


def conversion_table() -> str:
    """Return the matrix of sources and targets as a Markdown table."""
    lines = [f"| from \\ to | {' | '.join(TARGETS)} |", "|---" * (len(TARGETS) + 1) + "|"]
    for source in dict.fromkeys(source for source, _ in CONVERSIONS):
        cells = (CONVERSIONS[source, target] for target in TARGETS)
        lines.append(f"| {source} | {' | '.join('—' if cell.hint else cell.done for cell in cells)} |")
    return "\n".join(lines)
