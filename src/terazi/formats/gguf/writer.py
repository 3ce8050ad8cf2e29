"""Writing GGUF: exact sizes beforehand, row slabs streamed while the next is computed, whole files only."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from terazi.dtypes import dtype
from terazi.errors import UsageError
from terazi.files import atomic_write, check_space
from terazi.formats.gguf.reader import ALIGNMENT, MAGIC, MAX_NAME_BYTES, shard_path
from terazi.formats.gguf.values import encode_pairs, encode_string
from terazi.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from terazi.model import Tensor

__all__ = ["Output", "file_size", "split_by_size", "write", "write_many"]

_VERSION = 3
# A slab is counted as float32, since that is what a tensor being quantized holds beside its bytes.
_SLAB_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One model to write. ``split`` says which part (from 0) each tensor goes to; None writes one file.

    Parts of ``model.gguf`` are named ``model-00001-of-00003.gguf`` and so on.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Sequence[Tensor]
    split: Mapping[str, int] | None = None


def write(
    path: Path | str,
    metadata: Mapping[str, Any],
    tensors: Sequence[Tensor],
    *,
    split: Mapping[str, int] | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Path:
    """Write one model; returns the file, or its first part. See `write_many`."""
    output = Output(path=Path(path), metadata=metadata, tensors=list(tensors), split=split)
    return write_many([output], force=force, progress=progress)[0]


def write_many(
    outputs: Sequence[Output], *, force: bool = False, progress: Progress = silent, task: str = "writing"
) -> list[Path]:
    """Write several models in one pass and return the (first) file of each.

    The outputs must list tensors of the same shapes in the same order. For every slab of rows of every
    tensor, each output's tensor is read in turn, so tensors derived from one source may share its rows.
    Reading (which may compute) runs one slab ahead of writing. No file appears unless all are complete.

    Raises `ExistsError` unless ``force``, `UsageError` for metadata that GGUF cannot hold.
    """
    shards = [_shards(output) for output in outputs]
    total = sum(shard.size for part in shards for shard in part)
    _check_space([shard for part in shards for shard in part])
    done = 0
    with ExitStack() as files, ThreadPoolExecutor(1, "read-ahead") as reader:
        sinks: list[dict[str, _Sink]] = []
        for part in shards:
            by_name: dict[str, _Sink] = {}
            for shard in part:
                file = files.enter_context(atomic_write(shard.path, force=force))
                done += file.write(shard.header)
                by_name |= {tensor.name: _Sink(file, shard.alignment) for tensor in shard.tensors}
            sinks.append(by_name)
        slabs = _slabs(outputs, sinks)
        ahead = None
        for slab in slabs:
            reading = reader.submit(slab.read)
            if ahead:
                done += ahead[0].write(ahead[1].result())
                progress(task, done, total, unit="bytes")
            ahead = slab, reading
        if ahead:
            done += ahead[0].write(ahead[1].result())
        progress(task, done, total, unit="bytes")
    return [part[0].path for part in shards]


def file_size(
    metadata: Mapping[str, Any], tensors: Sequence[Tensor], *, split: Mapping[str, int] | None = None
) -> int:
    """Return the exact bytes that `write` will take, over all parts."""
    output = Output(path=Path("model.gguf"), metadata=metadata, tensors=tensors, split=split)
    return sum(shard.size for shard in _shards(output))


def split_by_size(tensors: Sequence[Tensor], limit: int) -> dict[str, int]:
    """Assign tensors to parts of at most ``limit`` bytes of weights each (one tensor may exceed it)."""
    parts: dict[str, int] = {}
    part = filled = 0
    for tensor in tensors:
        if filled and filled + tensor.nbytes > limit:
            part, filled = part + 1, 0
        parts[tensor.name] = part
        filled += tensor.nbytes
    return parts


@dataclass(frozen=True, slots=True)
class _Shard:
    path: Path
    header: bytes
    alignment: int
    tensors: Sequence[Tensor]
    size: int


@dataclass(frozen=True, slots=True)
class _Sink:
    file: IO[bytes]
    alignment: int


@dataclass(frozen=True, slots=True)
class _Slab:
    tensor: Tensor
    start: int
    stop: int
    sink: _Sink

    def read(self) -> np.ndarray:
        return self.tensor.encoded(self.start, self.stop)

    def write(self, data: np.ndarray) -> int:
        """Write the rows, and the padding after the last; returns how many bytes."""
        if data.shape != (self.stop - self.start, self.tensor.row_bytes) or data.dtype != np.uint8:
            raise ValueError(f"{self.tensor.name}: read gave {data.dtype}{data.shape}")
        self.sink.file.write(np.ascontiguousarray(data).data)
        if self.stop < self.tensor.row_count:
            return data.nbytes
        return data.nbytes + self.sink.file.write(bytes(-self.tensor.nbytes % self.sink.alignment))


def _slabs(outputs: Sequence[Output], sinks: Sequence[Mapping[str, _Sink]]) -> Iterator[_Slab]:
    shapes = [[tensor.shape for tensor in output.tensors] for output in outputs]
    if any(shape != shapes[0] for shape in shapes):
        raise UsageError("models written in one pass must have the same tensors in the same order")
    for tensors in zip(*(output.tensors for output in outputs), strict=True):
        rows = max(_SLAB_BYTES // (4 * tensors[0].columns), 1)
        for start in range(0, tensors[0].row_count, rows):
            stop = min(start + rows, tensors[0].row_count)
            for tensor, by_name in zip(tensors, sinks, strict=True):
                yield _Slab(tensor, start, stop, by_name[tensor.name])


def _shards(output: Output) -> list[_Shard]:
    names = [tensor.name for tensor in output.tensors]
    if len(set(names)) < len(names):
        raise UsageError(f"{output.path}: two tensors have the same name")
    if long := [name for name in names if len(name.encode()) > MAX_NAME_BYTES]:
        raise UsageError(f"{long[0]}: GGUF allows {MAX_NAME_BYTES} bytes for a tensor's name")
    if output.split is None:
        return [_shard(output.path, output.metadata, output.tensors)]
    count = max(output.split.values(), default=0) + 1
    shards = []
    for part in range(count):
        tensors = [tensor for tensor in output.tensors if output.split[tensor.name] == part]
        metadata: dict[str, Any] = dict(output.metadata) if part == 0 else {}
        if "general.alignment" in output.metadata:
            metadata["general.alignment"] = output.metadata["general.alignment"]
        metadata |= {
            "split.no": np.uint16(part),
            "split.count": np.uint16(count),
            "split.tensors.count": np.int32(len(names)),
        }
        name = shard_path(output.path.name.removesuffix(".gguf"), part, count)
        shards.append(_shard(output.path.with_name(name), metadata, tensors))
    return shards


def _shard(path: Path, metadata: Mapping[str, Any], tensors: Sequence[Tensor]) -> _Shard:
    """Lay one file out: its header with all offsets, padded, and its size."""
    alignment = int(metadata.get("general.alignment", ALIGNMENT))
    header = bytearray(MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(metadata)))
    header += encode_pairs(metadata)
    offset = 0
    for tensor in tensors:
        axes = tensor.shape[::-1]
        header += encode_string(tensor.name) + struct.pack(f"<I{len(axes)}Q", len(axes), *axes)
        header += struct.pack("<IQ", dtype(tensor.type).id, offset)
        offset += tensor.nbytes + -tensor.nbytes % alignment
    header += bytes(-len(header) % alignment)
    return _Shard(path, bytes(header), alignment, tensors, len(header) + offset)


def _check_space(shards: Sequence[_Shard]) -> None:
    needed: dict[Path, int] = {}
    for shard in shards:
        needed[shard.path.parent] = needed.get(shard.path.parent, 0) + shard.size
    for directory, size in needed.items():
        check_space(directory, size)
