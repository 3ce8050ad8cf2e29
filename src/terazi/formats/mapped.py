"""Memory-mapped weights that give their pages back, so that streaming a large file does not fill memory."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MappedFile"]

# Pages of a file stay in the process until the system wants them back, and count as its memory until then.
_RESIDENT_BYTES = 128 << 20


class MappedFile:
    """Tensor data in a map. Views stay valid: a page that was given back is read again when touched."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._read = 0

    def rows(self, offset: int, nbytes: int, rows: int) -> Callable[[int, int], np.ndarray]:
        """Return a reader of row ranges, ``uint8[stop - start, row_bytes]``, of the matrix at ``offset``."""
        matrix = np.frombuffer(self._data, np.uint8, nbytes, offset).reshape(rows, -1)

        def read(start: int, stop: int) -> np.ndarray:
            view = matrix[start:stop]
            self._read += view.nbytes
            if self._read > _RESIDENT_BYTES and hasattr(mmap, "MADV_DONTNEED"):
                self._data.madvise(mmap.MADV_DONTNEED)
                self._read = view.nbytes
            return view

        return read
