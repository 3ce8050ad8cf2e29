"""``terazi evaluate``: what a model is worth, measured in the runtime it will run in."""

from __future__ import annotations

from math import floor, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from terazi.cli.output import json_option, progress_bars, size, write_json, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from terazi.evaluate import Measurement

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  terazi evaluate small.gguf
  terazi evaluate small.gguf --reference model-f16.gguf --text my-domain.txt
  terazi evaluate model-mlx --reference model-f16.gguf --tokens 1024
  terazi evaluate small.gguf --reference model-f16.gguf --tokens 32768 --json
"""


@click.command("evaluate", short_help="Measure a model's quality, speed and memory.", epilog=_EXAMPLES)
@click.argument("model")
@click.option("--reference", metavar="MODEL", help="Compare with this variant of the same model.")
@click.option(
    "--text", type=click.Path(path_type=Path), metavar="FILE",
    help="UTF-8 text to measure on; half of Python's documentation unless given.",
)  # fmt: skip
@click.option(
    "--tokens", type=click.IntRange(1, 1 << 30), default=4096, show_default=True,
    help="How much of the text to use; more narrows the error.",
)  # fmt: skip
@click.option(
    "--context", type=click.IntRange(16, 1 << 20), default=512, show_default=True,
    help="Tokens per window; the second half of each is scored.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads; every usable core unless given.")
@json_option
def command(
    model: str,
    reference: str | None,
    text: Path | None,
    tokens: int,
    context: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run MODEL in its own engine and measure it: perplexity, speed, load time, memory.

    MODEL is a GGUF file (llama.cpp), an ONNX model (onnxruntime), an MLX or Hugging Face directory (MLX) or
    the name of a stored model. With --reference, also how far the answers are from
    those of another variant (KL divergence, share of same first choices; for embedding models the cosine).
    Definitions are those of llama-perplexity. What was measured before is reused: same files, same settings.
    """
    from terazi.api import evaluate

    with progress_bars(enabled=not as_json) as progress:
        measured = evaluate(
            model, reference, text=text, tokens=tokens, context=context, threads=threads, progress=progress
        )
    if as_json:
        write_json({"model": model, "reference": reference, "measurements": [m.to_dict() for m in measured]})
        return
    _write(measured)


def _write(measured: Sequence[Measurement]) -> None:
    from terazi.evaluate import METRICS

    rows = [(METRICS[m.metric].title, _figure(m), m.unit if m.unit != "bytes" else "") for m in measured]
    write_table(("measured", "value", "unit"), rows, numeric=("value",))
    for line in _notes({m.metric: m.conditions for m in measured}):
        click.echo(line)


def _notes(given: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield what one must know to read the table; ``given`` is metric -> conditions."""
    if language := given.get("perplexity"):
        amount = f"{language['windows']} windows of {language['context']} tokens"
        yield f"text: {language['corpus']}, {amount}; {language['runtime']}"
    if embedding := given.get("cosine"):
        yield f"text: {embedding['corpus']}, {embedding['sentences']} sentences; {embedding['runtime']}"
    if divergence := given.get("kl_divergence"):
        yield f"floor: the reference is {divergence['floor']:.1g} nats from its own stored answers"
    compared = divergence or embedding
    if compared and compared["reference_quantized"]:
        kind = compared["reference_types"][0]
        yield f"note: the reference is itself quantized ({kind}); what that lost does not show here"
    if (speed := given.get("prefill_speed")) and speed["processor_share"] < 0.9:
        yield f"note: other programs left {speed['processor_share']:.0%} of the processor: speeds are too low"


def _figure(measurement: Measurement) -> str:
    value, error = measurement.value, measurement.uncertainty
    if measurement.unit == "bytes":
        return size(value)
    if error is None:
        return f"{value:.4g}"
    if error == 0:
        return f"{value:.4g} ± 0"
    decimals = max(0, 1 - floor(log10(error)))  # two digits of the error
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"
