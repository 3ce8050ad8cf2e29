"""What a model's engine is started with, and the memory that it will take."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terazi.errors import TeraziError, UnsupportedError
from terazi.runtime.llamacpp.server import NGRAM
from terazi.serve.engine import SERVERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from terazi.model import Model
    from terazi.registry import Entry, Store

__all__ = ["Limits", "Loading", "plan_loading"]

_ROLES = ("adapter", "projector", "draft")
# Format -> copies of the weights, bytes of a cached number, bytes of the engine's code; as measured.
# onnxruntime keeps a repacked copy beside the file's. Cached is float32, twice: ended conversations are kept.
_MEMORY = {"gguf": (1, 2, 0), "onnx": (2, 8, 60_000_000), "mlx": (1, 8, 130_000_000)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much the pool may take.

    ``context`` is tokens per conversation, ``parallel`` conversations per model at a time, ``memory`` bytes
    for all engines, ``keep_alive`` seconds that an idle model stays (negative: for ever), ``longest_queue``
    requests waiting per model. ``gpu_layers`` is how many layers go to GPUs, -1: what fits. ``drafts`` gives
    models, by name, a draft model's file or ``ngram``, instead of what they were made with.
    """

    context: int = 4096
    parallel: int = 4
    threads: int = 1
    memory: int = 4 << 30
    keep_alive: float = 300
    longest_queue: int = 64
    gpu_layers: int = -1
    drafts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loading:
    """The fields of the server's `ServerOptions` but ``key``, and the bytes it will need (estimated).

    ``tools`` is False when llama.cpp would leave tools out without a word, the template having no place.
    """

    options: dict[str, Any]
    need: int
    tools: bool = True


def plan_loading(store: Store, entry: Entry, limits: Limits, embedding: bool, context: int) -> Loading:
    """Plan how a stored model is loaded, for embeddings or for text, with fewer conversations at a time when
    memory is short.

    ``context`` asks for at least so many tokens per conversation. Raises `UnsupportedError` for a format that
    is not served, and for a model that cannot do what is asked for.
    """
    from terazi.formats import open_model

    if entry.manifest.format not in SERVERS:
        raise UnsupportedError(
            f"{entry.name} is {entry.manifest.format}; served are {', '.join(SERVERS)}",
            hint="terazi convert makes a GGUF file of it",
        )
    path = store.resolve(entry.name)
    model = open_model(path)
    settings = entry.manifest.settings
    trained = model.config.context_length or limits.context
    wanted = context or int(settings.get("parameters", {}).get("num_ctx", limits.context))
    if context > trained:
        raise TeraziError(f"{entry.name} was trained for {trained} tokens; {context} were asked for")
    tokens = min(wanted, trained)
    files = {
        role: [str(store.file(entry, f)) for f in entry.manifest.files if f.role == role] for role in _ROLES
    }
    if model.format == "gguf":
        own = _for_llama_cpp(model, files) | {"gpu_layers": limits.gpu_layers}
        own["draft"] = "" if embedding else limits.drafts.get(entry.name) or _own_draft(entry, files)
    else:
        _check_use(entry, model, embedding)
        own = {}
    extra = sum(Path(file).stat().st_size for role in ("adapter", "projector") for file in files[role])
    models = [model, *_draft_models(model, str(own.get("draft", "")))]
    parallel = limits.parallel
    while True:
        need = extra + sum(_memory(each, tokens * parallel) for each in models)
        if need <= limits.memory or parallel == 1:
            break
        parallel //= 2
    template = settings.get("template", "")
    shown = template or (model.tokenizer.chat_template if model.tokenizer else None) or ""
    return Loading(
        {
            "model": str(path),
            "alias": entry.name,
            "context": tokens,
            "parallel": parallel,
            "threads": limits.threads,
            "embedding": embedding or model.variant == "embedding",
            "template": _template(template),
            **own,
        },
        need,
        tools=model.format != "gguf" or "tools" in shown,
    )


def _memory(model: Model, tokens: int) -> int:
    from terazi.model.memory import memory_needed

    copies, cached, code = _MEMORY[model.format]
    return memory_needed(model.nbytes * copies, model.config, tokens, value_bytes=cached).total + code


def _for_llama_cpp(model: Model, files: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "pooled": model.variant == "embedding",
        "adapters": tuple(files["adapter"]),
        "projector": next(iter(files["projector"]), ""),
    }


def _own_draft(entry: Entry, files: dict[str, list[str]]) -> str:
    named = entry.manifest.settings.get("parameters", {}).get("draft_model", "")
    return next(iter(files["draft"]), NGRAM if named == NGRAM else "")


def _draft_models(model: Model, draft: str) -> list[Model]:
    from terazi.formats import open_model
    from terazi.serve.draft import check_draft

    models = [open_model(Path(draft))] if draft not in ("", NGRAM) else []
    for found in models:
        check_draft(model, found)
    return models


def _check_use(entry: Entry, model: Model, embedding: bool) -> None:
    """Refuse what only llama.cpp does: taking embeddings from a model that writes."""
    embeds = model.variant == "embedding" or "last_hidden_state" in model.metadata.get("outputs", ())
    exported = any(file.name == "genai_config.json" for file in model.files)
    writes = not embeds and (model.format != "onnx" or exported)
    if embedding and not embeds:
        raise UnsupportedError(f"{entry.name} makes no embeddings", hint="ask an embedding model")
    if not embedding and not writes:
        what = "makes embeddings" if embeds else "is no language model"
        raise UnsupportedError(f"{entry.name} {what} and writes no text", hint="ask a language model")


def _template(text: str) -> str:
    from terazi.serve.template import to_jinja

    return to_jinja(text) if text else ""
