"""Which format a path holds, judged by content, and opening it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import FormatError, NotFoundError, UnsupportedError

if TYPE_CHECKING:
    from terazi.model import Model

__all__ = ["FORMATS", "open_model"]

# Format -> module with `detect(path) -> bool` and `read(path) -> Model`; imported on use, tried in order.
FORMATS: dict[str, str] = {
    "gguf": "terazi.formats.gguf",
    "mlx": "terazi.formats.mlx",
    "huggingface": "terazi.formats.huggingface",
    "onnx": "terazi.formats.onnx",
}

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


def open_model(path: Path | str) -> Model:
    """Open a checkpoint in any known format: a GGUF file, a safetensors file or a Hugging Face directory.

    Only headers are read. Raises `NotFoundError` when there is nothing at ``path``, `FormatError` when it is
    damaged or not a model, `UnsupportedError` when it is a kind of model that Terazi does not open.
    """
    path = Path(path)
    if not path.exists():
        raise NotFoundError(f"{path}: no such file or directory")
    if not path.is_dir() and not path.is_file():
        raise FormatError(path, "not a regular file")
    for module in map(import_module, FORMATS.values()):
        if module.detect(path):
            return module.read(path)
    _refuse_pickle(path)
    _refuse_without_weights(path)
    raise FormatError(
        path,
        "no model in a known format",
        hint=f"give a GGUF file, a safetensors file or a Hugging Face directory ({', '.join(FORMATS)})",
    )


def _refuse_without_weights(path: Path) -> None:
    """Say what is wrong with a directory that has a config.json and is no model all the same."""
    config = path / "config.json"
    if config.is_file():
        from terazi.formats.huggingface.reader import read_json

        read_json(config)  # raises when it is damaged
        raise FormatError(
            path, "has a config.json, but no weights beside it", hint="get the model's safetensors files"
        )


def _refuse_pickle(path: Path) -> None:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        if file.suffix in _PICKLE_SUFFIXES and file.is_file():
            with file.open("rb") as opened:
                start = opened.read(4)
            if start == _ZIP or start[:1] == _PICKLE:
                raise UnsupportedError(
                    f"{file}: a pickle, which can run any code when it is loaded; Terazi never opens one",
                    hint="get the safetensors files of this model, or ask its makers for them",
                )
