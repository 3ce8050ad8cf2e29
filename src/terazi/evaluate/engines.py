"""Which engine runs which format, and its version, which measurements depend on."""

from __future__ import annotations

import shlex
from importlib import import_module
from typing import TYPE_CHECKING, Any

from terazi.errors import UnsupportedError

if TYPE_CHECKING:
    from pathlib import Path

    from terazi.evaluate.setting import Setting
    from terazi.evaluate.subject import Subject
    from terazi.runtime.engine import Engine

__all__ = ["ENGINES", "open_engine", "open_writer", "runtime_version"]

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


def open_writer(path: Path, *, context: int, threads: int | None) -> Engine:
    """Open a model that writes text in the engine of its format; use it in a ``with`` block.

    Raises `UnsupportedError` for a model that does not write, or that no engine here runs.
    """
    from terazi.formats import open_model

    model = open_model(path)
    quoted = shlex.quote(str(path))
    if model.format not in ENGINES:
        raise UnsupportedError(
            f"{path}: nothing here runs {model.format} models; these can be run: {', '.join(ENGINES)}",
            hint=f"terazi convert {quoted} model.gguf",
        )
    if model.variant == "embedding" or "bert" in model.config.architecture:
        raise UnsupportedError(
            f"{path}: an embedding model turns text into vectors and writes none",
            hint="`terazi evaluate` measures it, `terazi serve` has /v1/embeddings",
        )
    return import_module(ENGINES[model.format][0]).open_engine(path, context=context, threads=threads)


def runtime_version(subject: Subject) -> str:
    """Return the version of the engine's package, or an empty text where it is missing."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(ENGINES[subject.format][1])
    except PackageNotFoundError:
        return ""
