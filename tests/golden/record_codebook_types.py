"""Record what ggml's reference quantizer makes of the codebook blocks, as digests.

    LIBGGML_BASE=/path/to/libggml-base.so python tests/golden/record_codebook_types.py

The library must be a build for x86-64 (``-DGGML_NATIVE=OFF``) of the ggml 0.25.3 in llama-cpp-python 0.3.36.
Only IQ1_M depends on that version; everything else is the same with ggml 0.20.2.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from codebook_blocks import CODEBOOK_TYPES, cases, digest, inputs

import ggml
from terazi.dtypes import dtype

TARGET = Path(__file__).with_name("codebook_types.json")


def main() -> None:
    """Write the file beside this one."""
    types = {}
    for name in CODEBOOK_TYPES:
        kind = dtype(name)
        ggml.prepare(kind.id)
        types[name] = {
            case: digest(ggml.quantize(kind.id, x, importance))
            for case, x, importance in cases(kind.importance)
        }
    TARGET.write_text(json.dumps({"inputs": inputs(), "types": types}, indent=1) + "\n")


if __name__ == "__main__":
    main()
