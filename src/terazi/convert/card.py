"""What goes with converted weights for people: a model card with the licence and how to use them."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from terazi.model.license import check_license

if TYPE_CHECKING:
    from pathlib import Path

    from terazi.model import Model

__all__ = ["model_papers"]

_LICENSE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*")
_FORMATS = {"gguf": "GGUF", "huggingface": "Hugging Face", "mlx": "MLX", "onnx": "ONNX"}
_CARDS = files("terazi.convert") / "cards"


def model_papers(model: Model, *, format: str, label: str, output: Path) -> dict[str, str | bytes]:
    """Return README.md and the source's licence files, by name, for ``model`` written as ``format``.

    The card is in the form of Hugging Face's: YAML with the licence and the task, then what the weights were
    made from and code that runs them. ``label`` says how they are stored.
    """
    if not model.path.is_dir():
        return {"README.md": _card(model, format, label, output.name)}
    kept = (file for pattern in _LICENSE_FILES for file in model.path.glob(pattern) if file.is_file())
    texts: dict[str, str | bytes] = {file.name: file.read_bytes() for file in kept}
    return texts | {"README.md": _card(model, format, label, output.name)}


def _card(model: Model, format: str, label: str, place: str) -> str:
    task = "sentence-similarity" if model.variant == "embedding" else "text-generation"
    usage = _CARDS / f"{format}-{task}.md"
    facts = _license(model.license)
    parts = [
        f"# {model.name}\n",
        f"{_FORMATS[format]}, {label}, made by Terazi from {_FORMATS[model.format]}.\n",
    ]
    if model.tokenizer is not None and usage.is_file():
        facts.append(f"pipeline_tag: {task}")
        parts.append(usage.read_text("utf-8").replace("{{ place }}", place))
    front = ["\n".join(("---", *facts, "---", ""))] if facts else []
    return "\n".join(front + parts)


def _license(license: str | None) -> list[str]:
    if not license:
        return []
    name = "".join(letter for letter in license if letter.isalnum() or letter in "+-._")
    known = check_license(license, "personal").verdict != "unknown"
    return [f"license: {name}"] if known else ["license: other", f"license_name: {name}"]
