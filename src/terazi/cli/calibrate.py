"""``terazi calibrate``: which columns of a model's weights matter."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from terazi.cli.output import json_option, progress_bars, write_json, write_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from terazi.calibrate import Calibration, TensorStatistics

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  terazi calibrate model-f16.gguf importance.gguf
  terazi calibrate ./Qwen3-0.6B importance.gguf --text mine.txt --chunks 100
  terazi calibrate importance.gguf both.gguf --merge other.gguf
  terazi calibrate importance.gguf --statistics
"""


@click.command("calibrate", short_help="Find out which weights matter, for quantizing.", epilog=_EXAMPLES)
@click.argument("model")
@click.argument("output", type=click.Path(path_type=Path), required=False)
@click.option("--text", type=click.Path(path_type=Path), help="A UTF-8 text like what the model will meet.")
@click.option("--chunks", type=click.IntRange(1), metavar="N", help="Run at most N chunks of the text.")
@click.option(
    "--context", type=click.IntRange(16), metavar="N", help="Tokens per chunk. [default: 512, or all it can]"
)
@click.option(
    "--merge", "earlier", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
    help="Add an importance matrix that was made before; may be repeated.",
)  # fmt: skip
@click.option("--output-tensor", is_flag=True, help="Watch output.weight too.")
@click.option("--threads", type=click.IntRange(1), help="Default: the processors this process may use.")
@click.option("--statistics", "show", is_flag=True, help="Print a table of the result.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@json_option
def command(model: str, output: Path | None, as_json: bool, **options: Any) -> None:
    """Run a text through MODEL and write to OUTPUT how strongly each column of its weights is used.

    `terazi quantize --importance OUTPUT` and llama-quantize use that to round the important weights better.
    Use the least quantized form of the model that you can run. Without --text it is half of Python's language
    reference. An interrupted run continues when you start it again.

    MODEL may also be an importance matrix (GGUF or .dat): then nothing is run, and it is merged, converted to
    GGUF or only shown.
    """
    if output is None and not options["show"]:
        raise click.UsageError("give an OUTPUT to write, or --statistics to look at a matrix")
    found = _existing(Path(model), output, options)
    if found is None:
        found = _collected(model, output, options, as_json)
    _report(found, output, as_json=as_json, show=options["show"])


def _existing(path: Path, output: Path | None, options: dict[str, Any]) -> Calibration | None:
    """Return the calibration when MODEL is one, merged and saved as asked."""
    from terazi.calibrate import is_calibration, load, merge, save

    if not is_calibration(path):
        return None
    found = load(path)
    if options["earlier"]:
        found = merge([found, *map(load, options["earlier"])])
    if output is not None:
        save(output, found, force=options["force"])
    return found


def _collected(model: str, output: Path | None, options: dict[str, Any], as_json: bool) -> Calibration:
    from terazi.api import calibrate

    chosen = {name: options[name] for name in ("chunks", "context", "output_tensor", "threads")}
    with progress_bars(enabled=not as_json) as progress:
        return calibrate(
            model,
            options["text"],
            output=output,
            earlier=options["earlier"],
            force=options["force"],
            progress=progress,
            **chosen,
        )


def _report(found: Calibration, output: Path | None, *, as_json: bool, show: bool) -> None:
    from terazi.calibrate import statistics

    figures = statistics(found) if show else []
    if as_json:
        values = {
            "path": str(output) if output else None,
            "weights": len(found),
            "chunks": found.chunks,
            "chunk_size": found.chunk_size,
            "datasets": found.datasets,
            "digest": found.digest,
            "unrouted": found.unrouted,
        }
        write_json(values | ({"statistics": [asdict(entry) for entry in figures]} if show else {}))
        return
    if show:
        _write_table(figures)
    if output is not None:
        click.echo(f"{output}: {len(found)} weights, {found.chunks} chunks of {found.chunk_size} tokens")
    if found.unrouted:
        experts = sum(found.unrouted.values())
        click.echo(
            f"{experts} experts in {len(found.unrouted)} weights saw no token and count all columns alike: "
            "a longer or more varied text reaches more of them"
        )


def _write_table(figures: Sequence[TensorStatistics]) -> None:
    numeric = ["tokens", "sum", "mean", "highest", "zero columns", "evenness", "top 1 %", "similarity"]
    rows = [
        [
            entry.name,
            str(entry.tokens),
            f"{entry.total:.4g}",
            f"{entry.mean:.4g}",
            f"{entry.highest:.4g}",
            str(entry.zero_columns),
            f"{entry.evenness:.1%}",
            f"{entry.top_share:.1%}",
            "" if entry.similarity is None else f"{entry.similarity:.3f}",
        ]
        for entry in figures
    ]
    write_table(["weight", *numeric], rows, numeric=numeric)
