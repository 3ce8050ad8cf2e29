"""Which engine runs which format, and its version, which measurements depend on."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from terazi.evaluate.setting import Setting
    from terazi.evaluate.subject import Subject

__all__ = ["ENGINES", "open_engine", "runtime_version"]

# Format -> (module with `open_engine`, package whose version decides results).
ENGINES: dict[str, tuple[str, str]] = {
    "gguf": ("terazi.runtime.llamacpp", "xllamacpp"),
    "onnx": ("terazi.runtime.onnxruntime", "onnxruntime"),
}


def open_engine(subject: Subject, setting: Setting) -> Any:
    """Open a model in its engine, for embeddings where it makes them; use it in a ``with`` block."""
    module, _ = ENGINES[subject.format]
    options = {"embedding": subject.embeds} if subject.format == "gguf" else {}
    path = subject.path if subject.format == "gguf" or subject.embeds else subject.path.parent
    return import_module(module).open_engine(
        path, context=setting.context, threads=setting.threads, **options
    )


def runtime_version(subject: Subject) -> str:
    """Return the version of the engine's package, or an empty text where it is missing."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(ENGINES[subject.format][1])
    except PackageNotFoundError:
        return ""
