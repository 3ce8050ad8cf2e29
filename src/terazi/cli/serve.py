"""``terazi serve``: models over HTTP."""

from __future__ import annotations

import os
from typing import Any

import click

from terazi.cli.gpu import GpuLayers
from terazi.cli.output import progress_bars

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  terazi serve
  terazi serve smollm2:135m --port 8080 --context 8192 --parallel 8
  terazi serve qwen3:4b --draft qwen3:0.6b
  terazi serve --host 0.0.0.0 --api-key "$(openssl rand -hex 16)" --memory 6GB
"""


@click.command("serve", short_help="Serve models with OpenAI's and Ollama's APIs.", epilog=_EXAMPLES)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=11434, show_default=True, help="0: a free one."
)
@click.option(
    "--api-key", "keys", multiple=True, envvar="TERAZI_API_KEY", help="Password to ask for. Repeatable."
)
@click.option("--no-api-key", is_flag=True, help="Listen beyond this machine without a password.")
@click.option("--context", type=click.IntRange(128), default=4096, show_default=True, help="Tokens each.")
@click.option(
    "--parallel", type=click.IntRange(1, 256), default=4, show_default=True, help="Answers at a time."
)
@click.option("--threads", type=click.IntRange(1), help="Processor threads per model; by default all.")
@click.option(
    "--gpu-layers", type=GpuLayers(), default="auto", show_default=True,
    help="Layers of a model to put on GPUs: what their free memory holds, or a number.",
)  # fmt: skip
@click.option(
    "--draft", metavar="MODEL", help="Guess ahead for the MODELs: a smaller one of their family, or `ngram`."
)
@click.option("--memory", metavar="SIZE", help="Budget for all models, such as 6GB. [default: 80 % of all]")
@click.option(
    "--keep-alive", default="5m", show_default=True, help="How long an idle model stays; -1: always."
)
@click.option(
    "--queue", type=click.IntRange(0), default=64, show_default=True, help="Requests waiting per model."
)
@click.option("--read-only", is_flag=True, help="Let nobody pull, create or delete models over the network.")
@click.option(
    "--otlp-endpoint", metavar="URL", help="Send traces there by OTLP/HTTP; as OTEL_EXPORTER_OTLP_ENDPOINT."
)
@click.option("--quiet", is_flag=True, help="Do not log requests.")
def command(models: tuple[str, ...], **options: Any) -> None:
    """Serve the models in the store: /v1/… as OpenAI does, /api/… as Ollama does, a page for browsers at /.

    Models load when they are asked for. Each MODEL is pulled first when the store lacks it. Requests are
    logged without what they say. SIGTERM lets running answers end.
    """
    from terazi.devices.machine import memory_limit
    from terazi.devices.quantities import parse_bytes
    from terazi.errors import MissingExtraError
    from terazi.registry import Store, pull
    from terazi.runtime.engine import default_threads

    if options["draft"] and not models:
        raise click.UsageError("--draft needs the MODEL that it guesses for: terazi serve MODEL --draft …")
    try:
        from terazi.serve.draft import drafts_for
        from terazi.serve.ollama import keep_alive_seconds
        from terazi.serve.pool import Limits
        from terazi.serve.run import run
        from terazi.serve.tracing import ENDPOINT
    except ImportError:
        raise MissingExtraError("serving", "serve") from None

    if options["otlp_endpoint"]:
        os.environ[ENDPOINT] = options["otlp_endpoint"]
    store = Store()
    names = list(models)
    with progress_bars() as progress:
        for number, model in enumerate(models):
            if model not in store:
                names[number] = pull(model, store=store, progress=progress).name
                click.echo(f"serving {names[number]}", err=True)
        drafts = drafts_for(names, options["draft"], store, progress) if options["draft"] else {}
    seconds = keep_alive_seconds(options["keep_alive"])
    limits = Limits(
        context=options["context"],
        parallel=options["parallel"],
        threads=options["threads"] or default_threads(),
        memory=parse_bytes(options["memory"]) if options["memory"] else memory_limit() * 8 // 10,
        keep_alive=300 if seconds is None else seconds,
        longest_queue=options["queue"],
        gpu_layers=options["gpu_layers"],
        drafts=drafts,
    )
    run(
        store,
        limits,
        host=options["host"],
        port=options["port"],
        keys=options["keys"] or (("",) if options["no_api_key"] else ()),
        read_only=options["read_only"],
        log_requests=not options["quiet"],
        listening=lambda address: click.echo(f"listening on {address}", err=True),
    )
