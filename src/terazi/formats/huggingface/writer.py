"""Writing a Hugging Face directory: safetensors streamed by rows, with an index when there are several."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import ExistsError, NotFoundError, UsageError
from terazi.files import check_space
from terazi.progress import Progress, silent

if TYPE_CHECKING:
    from terazi.model import Tensor

__all__ = ["write"]

_SLAB_BYTES = 64 << 20
_SHARD_BYTES = 5_000_000_000
_TYPES = {"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64", "U8", "U32"}


def write(
    directory: Path | str,
    tensors: Sequence[Tensor],
    files: Mapping[str, str | bytes],
    *,
    force: bool = False,
    shard_bytes: int = _SHARD_BYTES,
    progress: Progress = silent,
) -> tuple[Path, ...]:
    """Write ``tensors`` and ``files`` (name -> content) into ``directory``; returns all files.

    Weights beyond ``shard_bytes`` go to several files with an index. Nothing appears before all is written.
    Raises `ExistsError` for a directory that is not empty unless ``force``, which replaces files of the same
    name and earlier weights and leaves everything else.
    """
    directory = Path(directory)
    if directory.is_file() or (directory.is_dir() and any(directory.iterdir()) and not force):
        raise ExistsError(directory)
    if not directory.parent.is_dir():
        raise NotFoundError(f"{directory.parent}: no such directory", hint="create it first")
    odd = next((tensor for tensor in tensors if tensor.type not in _TYPES), None)
    if odd is not None:
        raise UsageError(f"{odd.name}: safetensors has no type {odd.type}")
    check_space(directory.parent, sum(tensor.nbytes for tensor in tensors) + sum(map(len, files.values())))
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as temporary:
        made = _write_weights(Path(temporary), _shards(tensors, shard_bytes), progress)
        for name, content in files.items():
            file = Path(temporary) / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
            made.append(name)
        directory.mkdir(exist_ok=True)
        for stale in {
            *directory.glob("model*.safetensors"),
            *directory.glob("model*.safetensors.index.json"),
        }:
            stale.unlink()
        for name in made:
            (directory / name).parent.mkdir(exist_ok=True)
            shutil.move(Path(temporary) / name, directory / name)
    return tuple(directory / name for name in made)


def _shards(tensors: Sequence[Tensor], limit: int) -> list[list[Tensor]]:
    shards: list[list[Tensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards


def _write_weights(directory: Path, shards: Sequence[Sequence[Tensor]], progress: Progress) -> list[str]:
    total = sum(tensor.nbytes for shard in shards for tensor in shard)
    done = 0
    places: dict[str, str] = {}
    names: list[str] = []
    for number, shard in enumerate(shards, 1):
        name = (
            f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
        )
        names.append(name)
        places |= dict.fromkeys((tensor.name for tensor in shard), name)
        with (directory / name).open("wb") as file:
            file.write(_header(shard))
            for tensor in shard:
                step = max(_SLAB_BYTES // max(tensor.columns * 4, 1), 1)
                for start in range(0, tensor.row_count, step):
                    done += file.write(tensor.encoded(start, min(start + step, tensor.row_count)).tobytes())
                    progress("writing", done, total, unit="bytes")
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), "utf-8")
        names.append("model.safetensors.index.json")
    return names


def _header(tensors: Sequence[Tensor]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        entries[tensor.name] = {
            "dtype": tensor.type,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
