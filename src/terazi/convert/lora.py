"""LoRA adapters: a PEFT directory to the GGUF adapter that llama.cpp adds to a model while it runs.

A pair of matrices (A: rank x columns, B: rows x rank) stands for the change B·A of one weight. GGUF keeps the
pair under the weight's GGUF name; where llama.cpp wants a weight's rows in another order, B's rows follow.
PEFT: https://huggingface.co/docs/peft; keys of the file: llama.cpp's ``src/llama-adapter.cpp``.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.convert.gguf import named
from terazi.errors import FormatError, UnsupportedError
from terazi.model import Tensor
from terazi.model.arch import architectures
from terazi.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from terazi.model import Config
    from terazi.model.arch.table import Architecture

__all__ = ["convert_adapter", "is_peft"]

_WEIGHTS = "adapter_model.safetensors"
_PAIR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(A|B)(?:\.\w+)?\.weight")


def is_peft(path: Path) -> bool:
    """Whether a directory holds a PEFT adapter."""
    return (path / "adapter_config.json").is_file()


def convert_adapter(
    adapter: Path, base: Config, output: Path, *, force: bool = False, progress: Progress = silent
) -> Path:
    """Write a PEFT LoRA directory as a GGUF adapter for models of ``base``'s shape.

    Raises `UnsupportedError` for other kinds of adapters and for weights whose rearrangement a pair of
    matrices cannot follow, `FormatError` for a damaged or unfitting adapter.
    """
    from terazi.formats import gguf
    from terazi.formats.huggingface import safetensors
    from terazi.formats.huggingface.reader import read_json

    settings = read_json(adapter / "adapter_config.json")
    alpha = _alpha(settings, adapter)
    if not (adapter / _WEIGHTS).is_file():
        raise FormatError(adapter, f"has no {_WEIGHTS}", hint="adapters in pickles (.bin) are never opened")
    pairs = _pairs(safetensors.read(adapter / _WEIGHTS), adapter)
    table = next((table for table in architectures() if table.name == base.architecture), None)
    if table is None:
        raise UnsupportedError(f"{adapter}: there is no table for {base.architecture}")
    tensors = [
        tensor
        for name, (a, b) in pairs.items()
        for tensor in _placed(name, a, b, table, _values(base), adapter)
    ]
    metadata = {
        "general.architecture": base.architecture,
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": np.float32(alpha),
    }
    return gguf.write(output, metadata, tensors, force=force, progress=progress)


def _alpha(settings: Mapping[str, Any], adapter: Path) -> float:
    """llama.cpp multiplies by alpha / rank; return the alpha that gives PEFT's scale."""
    kind, rank, alpha = settings.get("peft_type"), settings.get("r"), settings.get("lora_alpha")
    if kind != "LORA" or settings.get("use_dora") or settings.get("modules_to_save"):
        what = "DoRA" if settings.get("use_dora") else "whole saved modules" if kind == "LORA" else kind
        raise UnsupportedError(f"{adapter}: adapters with {what} do not run in llama.cpp, only LoRA does")
    if settings.get("rank_pattern") or settings.get("alpha_pattern"):
        raise UnsupportedError(f"{adapter}: different ranks or scales per layer do not fit one GGUF adapter")
    valid = all(isinstance(value, int | float) and 0 < value < 1e6 for value in (rank, alpha))
    if not valid or rank is None or alpha is None:
        raise FormatError(
            adapter / "adapter_config.json", f"rank {rank!r} and lora_alpha {alpha!r} make no sense"
        )
    return alpha * math.sqrt(rank) if settings.get("use_rslora") else alpha


def _pairs(tensors: Mapping[str, Tensor], adapter: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Hugging Face name of each changed weight -> A and B."""
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _PAIR.fullmatch(name)
        if match is None:
            raise UnsupportedError(f"{adapter}: {name[:100]} is no part of a LoRA of a linear layer")
        halves.setdefault(match[1], {})[match[2]] = tensor
    for name, pair in halves.items():
        a, b = pair.get("A"), pair.get("B")
        if a is None or b is None or len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
            raise FormatError(adapter, f"the two matrices of {name[:100]} do not fit together")
    if not halves:
        raise FormatError(adapter, "holds no weights")
    return {name: (pair["A"], pair["B"]) for name, pair in halves.items()}


def _values(base: Config) -> dict[str, Any]:
    """What the tables' rearrangements ask of a configuration, in Hugging Face's words."""
    return {
        "num_attention_heads": base.head_count,
        "num_key_value_heads": max(base.head_counts_kv, default=base.head_count),
        "head_dim": base.key_length,
        "hidden_size": base.embedding_length,
        "num_hidden_layers": base.block_count,
    }


def _placed(
    name: str, a: Tensor, b: Tensor, table: Architecture, values: Mapping[str, Any], adapter: Path
) -> list[Tensor]:
    """Return A and B under GGUF's name, B's rows in GGUF's order."""
    order = np.repeat(np.arange(b.shape[0], dtype=np.float32)[:, None], 2, axis=1)
    order[:, 1] = 1  # a second column shows whether anything but the order of rows changes
    probe = Tensor.from_array(f"{name}.weight", order)
    found = list(named(probe, table, values))
    if len(found) != 1:
        raise UnsupportedError(
            f"{adapter}: {name} becomes {len(found)} weights in GGUF; an adapter cannot follow"
        )
    target, _, moved = found[0]
    rows = moved.rows()
    whole = rows.shape == order.shape and np.array_equal(np.sort(rows[:, 0]), order[:, 0])
    if not whole or (rows[:, 1] != 1).any() or not target.endswith(".weight") or "blk." not in target:
        raise UnsupportedError(
            f"{adapter}: {name} is changed on the way to GGUF in a way no adapter can follow"
        )
    index = rows[:, 0].astype(np.int64)
    return [
        Tensor.from_array(f"{target}.lora_a", a.rows()),
        Tensor.from_array(f"{target}.lora_b", np.ascontiguousarray(b.rows()[index])),
    ]
