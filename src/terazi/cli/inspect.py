"""``terazi inspect``: what a model is, what it may be used for, and what it needs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from terazi.cli.output import count, json_option, size, write_json, write_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from terazi.model import Model
    from terazi.model.description import Description

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  terazi inspect smollm2.gguf
  terazi inspect ./Qwen3-0.6B --context 8192 --use commercial
  terazi inspect model.gguf --tensors --json
"""
_VERDICTS = {
    "yes": "allowed",
    "conditions": "allowed on conditions",
    "no": "NOT allowed",
    "unknown": "unknown",
}


@click.command("inspect", short_help="Show what a model is, needs and may be used for.", epilog=_EXAMPLES)
@click.argument("model")
@click.option("--context", type=click.IntRange(1, 1 << 24), help="Tokens to estimate the memory for.")
@click.option(
    "--use",
    type=click.Choice(["commercial", "redistribution", "research", "personal"]),
    default="commercial",
    show_default=True,
    help="Check the licence against this use.",
)
@click.option("--tensors", "show_tensors", is_flag=True, help="List every tensor.")
@json_option
def command(model: str, context: int | None, use: Any, show_tensors: bool, as_json: bool) -> None:
    """Show what MODEL is: a GGUF file, a Hugging Face directory, or an ONNX file.

    Only headers are read. The memory is an estimate for llama.cpp: weights, the F16 cache of keys and values
    at the given context, and working buffers. What a licence allows is a first orientation, no legal advice.
    """
    from terazi.api import inspect, open_model

    opened = open_model(model)
    found = inspect(opened, context=context, use=use)
    if as_json:
        graph = opened.metadata if found.format == "onnx" else None
        write_json(_to_json(found, opened if show_tensors else None, graph))
        return
    _write(found)
    if found.format == "onnx":
        _write_graph(opened)
    if show_tensors:
        write_table(
            ["tensor", "type", "shape", "bytes"],
            [[t.name, t.type, " x ".join(map(str, t.shape)), str(t.nbytes)] for t in opened.tensors.values()],
            numeric=["bytes"],
        )


def _write(found: Description) -> None:
    config, tokenizer, memory = found.config, found.tokenizer, found.memory
    experts = f", {config.expert_count} experts ({config.experts_used} used)" if config.expert_count else ""
    heads = f"{config.head_count} heads, {max(config.head_counts_kv, default=0)} for keys and values"
    licence = found.license
    rows = [
        ("name", found.name),
        ("format", found.format),
        ("architecture", f"{config.architecture}: {config.block_count} blocks, {heads}{experts}"),
        ("variant", found.variant),
        ("parameters", count(found.parameters)),
        ("size", f"{size(found.nbytes)}, {found.bits_per_weight:.2f} bits per weight"),
        ("precision", f"{found.precision} (most weights)"),
        ("context", f"{config.context_length} tokens" if config.context_length else "not stated"),
        ("tokenizer", f"{tokenizer.kind}, {tokenizer.vocabulary_size} tokens" if tokenizer else "none"),
        ("chat template", "yes" if tokenizer and tokenizer.chat_template else "no"),
        ("licence", f"{licence.title}; {licence.use} use {_VERDICTS[licence.verdict]}: {licence.reason}"),
        (
            f"memory at {found.context}",
            f"about {size(memory.total)} (estimate): weights {size(memory.weights)}, "
            f"KV cache {size(memory.kv_cache)}, buffers {size(memory.compute)}",
        ),
    ]
    for fit in found.runtimes:
        note = f" ({fit.note})" if fit.note else ""
        rows.append((f"runs in {fit.runtime}", ", ".join(fit.platforms) + note))
    width = max(len(label) for label, _ in rows)
    for label, text in rows:
        click.echo(f"{label:<{width}}  {text}")
    click.echo()
    write_table(
        ["type", "tensors", "weights", "size", "share"],
        [
            [
                s.type,
                str(s.tensors),
                count(s.weights),
                size(s.nbytes),
                f"{s.nbytes / max(found.nbytes, 1):.1%}",
            ]
            for s in found.types
        ],
        numeric=["tensors", "weights", "size", "share"],
    )


def _write_graph(opened: Model) -> None:
    facts = opened.metadata
    opsets = ", ".join(f"{domain} {version}" for domain, version in facts["opsets"].items())
    click.echo(
        f"\ninputs {', '.join(facts['inputs'])}; outputs {', '.join(facts['outputs'])}; opsets {opsets}"
    )
    rows = [(name, str(times)) for name, times in facts["operators"].items()]
    write_table(["operator", "times"], rows, numeric=["times"])


def _to_json(found: Description, opened: Model | None, graph: Mapping | None) -> dict[str, Any]:
    values = asdict(found)
    values["config"].pop("values")  # the file's own keys, in its own types
    values["memory"] |= {"total": found.memory.total, "estimated": True}
    if graph is not None:
        values["graph"] = dict(graph)
    if opened:
        values["tensors"] = [
            {"name": tensor.name, "type": tensor.type, "shape": tensor.shape, "nbytes": tensor.nbytes}
            for tensor in opened.tensors.values()
        ]
    return values
