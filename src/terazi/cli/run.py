"""``terazi run``: ask a model, or chat with it."""

from __future__ import annotations

import signal
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from terazi.cli.gpu import GpuLayers
from terazi.cli.output import json_option, progress_bars, write_json
from terazi.cli.real import Real

if TYPE_CHECKING:
    from pathlib import Path

    from terazi.runtime.engine import Engine, Generation

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  terazi run smollm2:135m "Why is the sky blue?"
  terazi run smollm2:135m-q4_k_m --make --system "Answer in one sentence." "What is a scale?"
  terazi run ./model.gguf
  echo "Name three rivers." | terazi run smollm2:135m --json
"""


_INTERRUPTED = 130


@click.command("run", short_help="Ask a model, or chat with it.", epilog=_EXAMPLES)
@click.argument("model")
@click.argument("prompt", required=False)
@click.option("--system", metavar="TEXT", help="Instructions that come before the conversation.")
@click.option("--temperature", type=Real(0, 5), help="0 takes the likeliest token. [default: 0.8]")
@click.option("--max-tokens", type=click.IntRange(1), default=512, show_default=True, help="Longest answer.")
@click.option(
    "--context", type=click.IntRange(16), default=2048, show_default=True, help="Tokens remembered."
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Makes answers repeatable."
)
@click.option("--threads", type=click.IntRange(1), help="Processor threads; by default all there are.")
@click.option(
    "--gpu-layers", type=GpuLayers(), default="auto", show_default=True,
    help="Layers of a GGUF model to put on GPUs: what their free memory holds, or a number.",
)  # fmt: skip
@click.option("--make", is_flag=True, help="Quantize a variant that the store lacks, from its base.")
@json_option
def command(model: str, prompt: str | None, make: bool, as_json: bool, **options: Any) -> None:
    """Stream MODEL's answer to PROMPT. Without PROMPT: read it from a pipe, or chat on a terminal.

    MODEL is a GGUF file, the directory of an ONNX or MLX model, a name in the store or catalog, or a source.
    Each format runs in its own engine. End a chat with /bye or Ctrl-D. A base model, which has no chat
    template, continues the text of PROMPT.
    """
    from terazi.evaluate.engines import open_writer

    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read()
    if prompt is not None and not prompt.strip():
        raise click.UsageError("no prompt: give one, pipe one, or run it in a terminal to chat")
    with progress_bars(enabled=not as_json) as progress:
        path, settings = _found(model, make, progress)
    parameters = settings.get("parameters", {})
    if options["temperature"] is None:
        options["temperature"] = float(parameters.get("temperature", 0.8))
    messages: list[dict[str, str]] | None = [dict(message) for message in settings.get("messages", ())]
    if system := options.pop("system") or settings.get("system"):
        messages.insert(0, {"role": "system", "content": system})
    loading = {name: options.pop(name) for name in ("context", "threads", "gpu_layers")}
    if not _chats(path):
        messages = None
        click.echo(f"note: {model} has no chat template: it continues your text", err=True)
    try:
        with open_writer(path, **loading) as engine:
            if prompt is None:
                return _chat(engine, messages, options)
            asked = prompt if messages is None else [*messages, {"role": "user", "content": prompt}]
            answer = _answer(engine, asked, options, show=not as_json)
    except KeyboardInterrupt:  # the user knows; there is nothing to continue
        click.echo(err=True)
        raise click.exceptions.Exit(_INTERRUPTED) from None
    if as_json:
        return write_json({"model": model, **asdict(answer)})
    return None


def _found(model: str, make: bool, progress: Any) -> tuple[Path, dict[str, Any]]:
    """The model's file, and the settings that the store keeps for it."""
    from terazi.errors import NotFoundError
    from terazi.registry import Store, resolve_model
    from terazi.registry.names import split_source
    from terazi.registry.variant import known_base, make_variant

    store = Store()
    try:
        path = resolve_model(model, store=store, progress=progress)
    except NotFoundError as error:
        missing_file = split_source(model) or error.message.endswith("directory")
        variant = None if missing_file else known_base(model, store)
        if variant is None:
            raise
        if not make:
            base, preset = variant
            raise NotFoundError(
                f"{model} is not in the store",
                hint=f"add --make to quantize {base} to {preset} now, or see `terazi optimize {base}`",
            ) from None
        path = store.resolve(make_variant(model, store=store, progress=progress).name)
    if path.is_relative_to(store.root) and not split_source(model):
        return path, dict(store.entry(model).manifest.settings)
    return path, {}


def _chats(path: Path) -> bool:
    """Whether a model has a chat template."""
    from terazi.formats import open_model

    tokenizer = open_model(path).tokenizer
    return bool(tokenizer and tokenizer.chat_template)


def _answer(
    engine: Engine, asked: str | list[dict[str, str]], options: dict[str, Any], *, show: bool = True
) -> Generation:
    answer = engine.generate(asked, on_text=_write if show else None, **options)
    if show:
        _told(answer)
    return answer


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _told(answer: Generation) -> None:
    """End what was written, with the speed when somebody watches."""
    _write("\n")
    if sys.stderr.isatty():
        click.echo(f"[{answer.tokens} tokens, {answer.decode_speed:.1f} tokens/s]", err=True)


def _chat(engine: Engine, messages: list[dict[str, str]] | None, options: dict[str, Any]) -> None:
    """Take turns until the user leaves; an interrupted answer ends the turn, not the chat."""
    click.echo("Chat; /bye or Ctrl-D ends it.", err=True)
    while True:
        try:
            prompt = input("> ")
        except EOFError:
            return click.echo(err=True)
        if prompt.strip() in ("/bye", "/exit", "/quit"):
            return None
        if not prompt.strip():
            continue
        if messages is None:
            _turn(engine, prompt, options)
            continue
        messages.append({"role": "user", "content": prompt})
        messages.append({"role": "assistant", "content": _turn(engine, messages, options)})


class _StoppedError(Exception):
    """The user has heard enough."""


def _turn(engine: Engine, asked: str | list[dict[str, str]], options: dict[str, Any]) -> str:
    """Return what was answered until its end or Ctrl-C; a second Ctrl-C ends the chat."""
    heard: list[str] = []
    asked_to_stop = False

    def stop(*_: object) -> None:
        nonlocal asked_to_stop
        if asked_to_stop:
            raise KeyboardInterrupt
        asked_to_stop = True

    def listen(text: str) -> None:
        heard.append(text)
        _write(text)
        if asked_to_stop:
            raise _StoppedError

    before = signal.signal(signal.SIGINT, stop)
    try:
        _told(engine.generate(asked, on_text=listen, **options))
    except _StoppedError:
        _write("\n")
    finally:
        signal.signal(signal.SIGINT, before)
    return "".join(heard)
