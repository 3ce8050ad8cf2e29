"""The baseline kernels compiled for ARM (NEON) and emulated give the bytes of this CPU's kernels.

Needs ``aarch64-linux-gnu-g++`` and ``qemu-aarch64-static`` (Debian: g++-aarch64-linux-gnu, qemu-user-static).
Rows whose weighted squares overflow are left out: which NaN comes of it differs between CPUs.
"""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from blocks import importances_to_try, rows_to_try

from terazi import _native
from terazi.dtypes import TYPES

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("aarch64-linux-gnu-g++")
EMULATOR = shutil.which("qemu-aarch64-static")
OVERFLOWING = {"huge", "any-magnitude", "large"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (COMPILER and EMULATOR), reason="no ARM compiler and emulator"),
]


@pytest.fixture(scope="module")
def replay(tmp_path_factory):
    listing = (ROOT / "CMakeLists.txt").read_text()
    families = re.search(r"set\(FAMILIES ([^)]*)\)", listing).group(1).split()
    sources = [ROOT / "native" / f"{name}.cpp" for name in [*families, "codebooks"]]
    program = tmp_path_factory.mktemp("neon") / "replay"
    flags = ["-std=gnu++20", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-static"]
    command = [COMPILER, *flags, "-DTERAZI_ISA=baseline", *sources, Path(__file__).with_name("replay.cpp")]
    subprocess.run([*command, "-Wno-psabi", "-o", program], check=True)
    return program


@pytest.mark.parametrize("name", [kind.name for kind in TYPES.values() if kind.importance != "none"])
def test_same_bytes(replay, name):
    kind = TYPES[name]
    cases, expected = [], []
    for rows_name, x in rows_to_try(4, 512).items():
        for importance_name, importance in importances_to_try(512).items():
            needed = kind.importance == "required" and importance is None
            if needed or {rows_name, importance_name} & OVERFLOWING:
                continue
            head = [kind.id, *x.shape, importance is not None, kind.row_bytes(512)]
            given = b"" if importance is None else importance.tobytes()
            cases.append(np.array(head, np.int32).tobytes() + x.tobytes() + given)
            q = _native.quantize(kind.id, x, importance, 1)
            expected.append(q.tobytes() + _native.dequantize(kind.id, q, 512, 1).tobytes())
    command = [EMULATOR, str(replay)]
    output = subprocess.run(command, input=b"".join(cases), capture_output=True, check=True).stdout
    assert output == b"".join(expected)
