"""One module per model family: how to read its configuration and name its tensors.

To add a family, write a module with ``ARCHITECTURES`` (see `terazi.model.arch.llama`) and name it here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from terazi.errors import FormatError, UnsupportedError

if TYPE_CHECKING:
    from terazi.model.arch.table import Architecture

__all__ = ["architecture", "architecture_table", "architectures", "settings"]

_MODULES = (
    "bert",
    "cohere",
    "ernie",
    "exaone",
    "falcon",
    "gemma",
    "gemma3n",
    "gemma4",
    "glm",
    "gpt",
    "gpt_oss",
    "granite",
    "hunyuan",
    "lfm2",
    "llama",
    "llama4",
    "mamba",
    "modernbert",
    "nemotron",
    "nomic",
    "olmo",
    "phi",
    "qwen",
    "qwen35",
    "qwen_vl",
    "rwkv",
    "stablelm",
    "starcoder2",
)


def architectures() -> Iterator[Architecture]:
    """Yield the table of every supported architecture."""
    for module in _MODULES:
        yield from import_module(f"terazi.model.arch.{module}").ARCHITECTURES


def architecture(config: Mapping[str, Any]) -> Architecture:
    """Find the table for a ``config.json``. Raises `UnsupportedError` naming the nearest supported class."""
    names = config.get("architectures")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        raise FormatError("config.json", "has no architectures, so nothing says what the weights are")
    values = settings(config)
    tables = {name: table for table in architectures() if table.when(values) for name in table.classes}
    found = next((tables[name] for name in names if name in tables), None)
    if found is None:
        near = get_close_matches(names[0], tables, n=1, cutoff=0)[0]
        raise UnsupportedError(
            f"{names[0]} has no table for GGUF; the nearest supported architecture is {near}",
            hint="see docs/guides/convert.md on how to add a table to src/terazi/model/arch",
        )
    for key, allowed in found.expects.items():
        if values.get(key) is not None and values[key] not in allowed:
            raise UnsupportedError(
                f"{names[0]} with {key} = {str(values[key])[:80]} does not run in llama.cpp, "
                f"whose graph has {' or '.join(map(str, allowed))}"
            )
    return found


def architecture_table() -> str:
    """Return GGUF's architectures and the classes that become them as a Markdown table."""
    classes: dict[str, list[str]] = {}
    back: set[str] = set()
    for table in architectures():
        classes.setdefault(table.name, []).extend(table.classes)
        back |= {table.name} if table.back else set()
    lines = ["| in GGUF | class in `config.json` | back to Hugging Face |", "|---|---|---|"]
    for name in sorted(classes):
        words = ", ".join(dict.fromkeys(f"`{entry}`" for entry in classes[name]))
        lines.append(f"| `{name}` | {words} | {'yes' if name in back else '—'} |")
    return "\n".join(lines)


def settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a ``config.json`` with the text part of a multimodal model lifted to the top."""
    part = config.get("text_config")
    return {**config, **part} if isinstance(part, dict) else dict(config)
