"""What a model's engine is started with, and the memory that it will take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terazi.errors import TeraziError, UnsupportedError
from terazi.serve.engine import SERVERS

if TYPE_CHECKING:
    from terazi.model import Model
    from terazi.registry import Entry, Store

__all__ = ["Limits", "Loading", "plan_loading"]

_ROLES = ("adapter", "projector")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much the pool may take.

    ``context`` is tokens per conversation, ``parallel`` conversations per model at a time, ``memory`` bytes
    for all engines, ``keep_alive`` seconds that an idle model stays (negative: for ever), ``longest_queue``
    requests waiting per model.
    """

    context: int = 4096
    parallel: int = 4
    threads: int = 1
    memory: int = 4 << 30
    keep_alive: float = 300
    longest_queue: int = 64


@dataclass(frozen=True, slots=True)
class Loading:
    """The fields of the server's `ServerOptions` but ``key``, and the bytes it will need (estimated)."""

    options: dict[str, Any]
    need: int


def plan_loading(store: Store, entry: Entry, limits: Limits, embedding: bool, context: int) -> Loading:
    """Plan how a stored model is loaded, for embeddings or for text, with fewer conversations at a time when
    memory is short.

    ``context`` asks for at least so many tokens per conversation. Raises `UnsupportedError` for a format that
    is not served, and for a model that cannot do what is asked for.
    """
    from terazi.formats import open_model
    from terazi.model.memory import memory_needed

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
        own = _for_llama_cpp(model, files)
    else:
        _check_use(entry, model, embedding)
        own = {}
    extra = sum(Path(file).stat().st_size for files_of in files.values() for file in files_of)
    parallel = limits.parallel
    while True:
        need = memory_needed(model.nbytes, model.config, tokens * parallel).total + extra
        if need <= limits.memory or parallel == 1:
            break
        parallel //= 2
    return Loading(
        {
            "model": str(path),
            "alias": entry.name,
            "context": tokens,
            "parallel": parallel,
            "threads": limits.threads,
            "embedding": embedding or model.variant == "embedding",
            "template": _template(settings.get("template", "")),
            **own,
        },
        need,
    )


def _for_llama_cpp(model: Model, files: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "pooled": model.variant == "embedding",
        "adapters": tuple(files["adapter"]),
        "projector": next(iter(files["projector"]), ""),
    }


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
