"""Which engine runs which format, and its version, which measurements depend on."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from terazi.errors import UnsupportedError

if TYPE_CHECKING:
    from pathlib import Path

    from terazi.evaluate.setting import Setting
    from terazi.evaluate.subject import Subject
    from terazi.runtime.engine import Engine

__all__ = ["ENGINES", "open_engine", "open_writer", "runtime_version"]

# Format -> module with `open_engine`, then packages whose versions decide results.
ENGINES: dict[str, tuple[str, ...]] = {
    "gguf": ("terazi.runtime.llamacpp", "xllamacpp"),
    "onnx": ("terazi.runtime.onnxruntime", "onnxruntime"),
    "mlx": ("terazi.runtime.mlx", "mlx", "mlx-lm"),
    "huggingface": ("terazi.runtime.mlx", "mlx", "mlx-lm"),
}


def open_engine(subject: Subject, setting: Setting) -> Any:
    """Open a model in its engine, for embeddings where it makes them; use it in a ``with`` block."""
    options = {} if subject.format == "onnx" else {"embedding": subject.embeds}
    return import_module(ENGINES[subject.format][0]).open_engine(
        subject.path, context=setting.context, threads=setting.threads, **options
    )


def open_writer(path: Path, *, context: int, threads: int | None, gpu_layers: int = 0) -> Engine:
    """Open a model that writes text in the engine of its format; use it in a ``with`` block.

    ``gpu_layers`` is for GGUF models only (`terazi.runtime.llamacpp.open_engine`). Raises `UnsupportedError`
    for a model that does not write.
    """
    from terazi.evaluate.subject import makes_embeddings
    from terazi.formats import open_model

    model = open_model(path)
    if makes_embeddings(model):
        raise UnsupportedError(
            f"{path}: an embedding model turns text into vectors and writes none",
            hint="`terazi evaluate` measures it, `terazi serve` has /v1/embeddings",
        )
    options = {"gpu_layers": gpu_layers} if model.format == "gguf" else {}
    module = import_module(ENGINES[model.format][0])
    return module.open_engine(path, context=context, threads=threads, **options)


def runtime_version(subject: Subject) -> str:
    """Return the versions of the engine's packages, or an empty text where one is missing."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return " ".join(version(package) for package in ENGINES[subject.format][1:])
    except PackageNotFoundError:
        return ""
