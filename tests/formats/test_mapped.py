"""Reading a mapped file from end to end leaves only a little of it in memory."""

import mmap
import re
from pathlib import Path

import numpy as np
import pytest

from terazi.formats.mapped import MappedFile

ROWS, ROW_BYTES = 300, 1 << 20


def file_pages() -> int:
    """Bytes of mapped files in this process."""
    found = re.search(r"RssFile:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) << 10


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to measure")
def test_pages_go_back(tmp_path):
    path = tmp_path / "weights"
    with path.open("wb") as file:
        file.truncate(64 + ROWS * ROW_BYTES)
        file.seek(64)
        file.write(b"\x07" * ROW_BYTES)
    with path.open("rb") as file:
        mapped = MappedFile(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    read = mapped.rows(64, ROWS * ROW_BYTES, ROWS)
    first = read(0, 1)
    before = file_pages()
    peak = 0
    for start in range(0, ROWS, 10):
        assert not read(max(start, 1), start + 10).any()
        peak = max(peak, file_pages() - before)
    assert peak < 160 << 20
    assert np.all(first == 7), "views outlive the pages"
