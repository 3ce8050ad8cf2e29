"""Log-probabilities of a reference model on disk, in llama-perplexity's ``--kl-divergence-base`` format.

The file is ``_logits_``, context (uint32), vocabulary and windows (int32), the tokens (int32), then one row
per scored token: scale and minimum (float32 each) and one uint16 code per vocabulary entry, padded to an
even count; ``log p = scale * code + minimum``. Probabilities below e**-16 of the likeliest share code 0. Rows
cover positions context // 2 to context - 2 of each window.
"""

from __future__ import annotations

import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import numpy as np

from terazi.errors import FormatError
from terazi.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["LogProbabilities", "decode", "encode", "first_scored", "open_file", "row_codes", "write_file"]

_MAGIC = b"_logits_"
_HEADER = struct.Struct("<8sIii")
_RANGE = np.float32(16)
_LARGEST_CODE = np.float32(65535)
_SMALLEST_SCALE = np.finfo(np.float32).tiny  # its inverse is finite; logits this close count as equal
_BLOCK_VALUES = 1 << 19


def first_scored(context: int) -> int:
    """Return the first position of a window whose next token is scored: only its second half counts."""
    return context // 2


def row_codes(vocabulary: int) -> int:
    """Return how many uint16 a stored row takes: four for scale and minimum, then the codes, padded."""
    return 4 + 2 * ((vocabulary + 1) // 2)


def encode(logits: np.ndarray) -> np.ndarray:
    """Return stored rows uint16[n, row_codes] of logits float32[n, vocabulary].

    Rounding is to the nearest code, ties to even, in float32 as llama-perplexity does it.
    """
    count, vocabulary = logits.shape
    result = np.zeros((count, row_codes(vocabulary)), np.uint16)
    step = max(1, _BLOCK_VALUES // vocabulary)
    for start in range(0, count, step):
        block = logits[start : start + step]
        highest = block.max(axis=1)
        lowest = np.maximum(block.min(axis=1), highest - _RANGE)
        total = np.exp(block - highest[:, None]).sum(axis=1, dtype=np.float64)
        scale = (highest - lowest) / _LARGEST_CODE
        header = np.stack([scale, lowest - highest - np.log(total).astype(np.float32)], axis=1)
        result[start : start + step, :4] = np.ascontiguousarray(header, np.float32).view(np.uint16)
        inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale >= _SMALLEST_SCALE)
        codes = np.maximum(block - lowest[:, None], np.float32(0))
        codes *= inverse[:, None]
        result[start : start + step, 4 : 4 + vocabulary] = np.rint(codes, out=codes)
    return result


def decode(rows: np.ndarray, vocabulary: int) -> np.ndarray:
    """Return log-probabilities float32[n, vocabulary] of stored rows uint16[n, row_codes]."""
    header = np.ascontiguousarray(rows[:, :4]).view(np.float32)
    result = rows[:, 4 : 4 + vocabulary].astype(np.float32)
    result *= header[:, :1]
    result += header[:, 1:]
    return result


@dataclass(frozen=True, slots=True)
class LogProbabilities:
    """An open file, mapped: ``tokens`` int32[windows, context], ``rows`` uint16[windows, scored, codes]."""

    vocabulary: int
    tokens: np.ndarray
    rows: np.ndarray

    @property
    def context(self) -> int:
        """Tokens in a window."""
        return self.tokens.shape[1]


def open_file(path: Path) -> LogProbabilities:
    """Map a file; raises `FormatError` when it is damaged."""
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise FormatError(path, "too short for a file of log-probabilities")
    magic, context, vocabulary, windows = _HEADER.unpack(head)
    if magic != _MAGIC:
        raise FormatError(path, "not a file of log-probabilities")
    if not (2 < context < 1 << 24 and 0 < vocabulary < 1 << 24 and 0 < windows < 1 << 24):
        raise FormatError(path, "its header makes no sense")
    start = _HEADER.size + 4 * context * windows
    shape = (windows, context - 1 - first_scored(context), row_codes(vocabulary))
    if path.stat().st_size != start + 2 * shape[0] * shape[1] * shape[2]:
        raise FormatError(path, "its size does not match its header")
    tokens = np.memmap(path, "<i4", "r", _HEADER.size, (windows, context))
    if tokens.min() < 0 or tokens.max() >= vocabulary:
        raise FormatError(path, "a token is outside the vocabulary")
    return LogProbabilities(vocabulary, tokens, np.memmap(path, "<u2", "r", start, shape))


@contextmanager
def write_file(path: Path, tokens: np.ndarray, vocabulary: int) -> Iterator[IO[bytes]]:
    """Write the header and ``tokens`` (int32[windows, context]); the block appends rows window by window.

    The file appears when the block ends well, and replaces an older one.
    """
    windows, context = tokens.shape
    with atomic_write(path, force=True) as file:
        file.write(_HEADER.pack(_MAGIC, context, vocabulary, windows))
        file.write(np.ascontiguousarray(tokens, "<i4").tobytes())
        yield file
