"""Reading a SentencePiece ``tokenizer.model``: pieces, scores, kinds, and how text is normalized.

The file is one protobuf message (``ModelProto`` in google/sentencepiece, ``src/sentencepiece_model.proto``).
The handful of fields needed is read here, checked against the file's end, so that no optional library is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from terazi.errors import FormatError

__all__ = ["Pieces", "read"]

UNIGRAM, BPE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Pieces:
    """A SentencePiece vocabulary. ``kinds`` are GGUF's token types, which are SentencePiece's own numbers."""

    tokens: list[str]
    scores: list[float]
    kinds: list[int]
    model_type: int = UNIGRAM
    charsmap: bytes = b""
    add_prefix: bool = True
    remove_extra_spaces: bool = True


def read(path: Path) -> Pieces:
    """Read a ``tokenizer.model``. Raises `FormatError`."""
    tokens: list[str] = []
    scores: list[float] = []
    kinds: list[int] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                piece = dict(_fields(_bytes(value)))
                tokens.append(_bytes(piece.get(1, b"")).decode())
                scores.append(struct.unpack("<f", _bytes(piece.get(2, b"\0\0\0\0")))[0])
                kinds.append(int(piece.get(3, 1)))
            elif number == 2:
                trainer = dict(_fields(_bytes(value)))
            elif number == 3:
                normalizer = dict(_fields(_bytes(value)))
    except (ValueError, IndexError, struct.error) as error:
        raise FormatError(path, f"is no SentencePiece model: {error}") from None
    if not tokens or not all(1 <= kind <= 6 for kind in kinds):
        raise FormatError(path, "is no SentencePiece model: no pieces, or pieces of unknown kinds")
    return Pieces(
        tokens=tokens,
        scores=scores,
        kinds=kinds,
        model_type=int(trainer.get(3, UNIGRAM)),
        charsmap=_bytes(normalizer.get(2, b"")),
        add_prefix=bool(normalizer.get(3, 1)),
        remove_extra_spaces=bool(normalizer.get(4, 1)),
    )


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where bytes belong")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of one protobuf message: varints as int, everything else as bytes."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire == _BYTES:
            size, position = _varint(data, position)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        if size > len(data) - position:
            raise ValueError("a field runs past the end")
        yield number, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number is too long")
