"""``terazi compare``: finished variants side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from terazi.cli.output import json_option, progress_bars, write_json
from terazi.cli.variants import show

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  terazi compare model-f16.gguf model-q4_k_m.gguf model-q8_0.gguf
  terazi compare small.gguf smaller.gguf --reference original.gguf --html compared.html
  terazi compare ./all-MiniLM-L6-v2 minilm-q8_0.gguf minilm-onnx minilm-mlx
"""


@click.command("compare", short_help="Measure finished variants side by side.", epilog=_EXAMPLES)
@click.argument("models", nargs=-1, required=True)
@click.option(
    "--reference", metavar="MODEL", help="What the others are compared with; the first unless given."
)
@click.option(
    "--device", default="this-machine", show_default=True, help="Profile or .toml for speed and memory."
)
@click.option(
    "--use-case", default="chat", show_default=True, help="Its prompts are asked, its context counted."
)
@click.option("--tokens", type=click.IntRange(32), help="Tokens to measure quality on. [default: 2048]")
@click.option("--text", type=click.Path(path_type=Path), metavar="FILE", help="UTF-8 text to measure on.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads; every usable core unless given.")
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page with pictures as well."
)
@click.option("--force", is_flag=True, help="Replace the page if it exists.")
@json_option
def command(models: tuple[str, ...], html: Path | None, force: bool, as_json: bool, **options: Any) -> None:
    """Run MODELS with the same settings and compare quality, speed, memory and answers.

    MODELS are variants of one model, in any formats: GGUF files, ONNX files or directories, MLX directories,
    Hugging Face directories (run as GGUF), stored names. Each runs in its own engine. What was measured
    before is reused.
    """
    from terazi import api
    from terazi.errors import ExistsError
    from terazi.files import write_text
    from terazi.report import page
    from terazi.search import Settings

    if html is not None and html.exists() and not force:
        raise ExistsError(html)
    settings = Settings(text=options["text"], threads=options["threads"])
    settings = replace(settings, tokens=options["tokens"] or settings.tokens)
    with progress_bars(enabled=not as_json) as progress:
        report = api.compare(
            models,
            reference=options["reference"],
            device=options["device"],
            use_case=options["use_case"],
            settings=settings,
            progress=progress,
        )
    if html is not None:
        write_text(html, page(report), force=force)
    if as_json:
        write_json(report)
    else:
        show(report)
        for note in report["caveats"]:
            click.echo(f"note: {note}")
