"""Record what llama.cpp's quantize makes of the tiny models, as digests of whole files.

    python tests/golden/record_quantize_parity.py /path/to/libllama.so

The library must be a build for x86-64 of the llama.cpp in llama-cpp-python 0.3.36:
``cmake -DGGML_NATIVE=OFF -DBUILD_SHARED_LIBS=ON`` and ``cmake --build . --target llama``.
"""

import hashlib
import json
import re
import sys
import tempfile
from pathlib import Path

from libllama import LibLlama
from parity_models import MODELS, OPTIONS

from terazi.dtypes import TYPES
from terazi.quantize import PRESETS

TARGET = Path(__file__).with_name("quantize_parity.json")


def reference(library, source, output, tiny, preset, *, weighed, options=None):
    """Write ``output`` with llama.cpp, as the command-line tool would; RuntimeError when it refuses."""
    options = dict(options or {})
    importance = tiny.importance()
    info = {"quantize.imatrix.file": importance.path.name, "quantize.imatrix.entries_count": len(importance)}
    overrides = [(pattern, TYPES[type].id) for pattern, type in options.pop("overrides", ())]
    for name in ("token_embedding_type", "output_tensor_type"):
        if name in options:
            options[name] = TYPES[options[name]].id
    if options.pop("leave_output_tensor", False):
        options["quantize_output_tensor"] = False
    return library.quantize(
        source,
        output,
        PRESETS[preset].file_type,
        importance=importance if weighed else None,
        info=info,
        overrides=overrides,
        **options,
    )


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def record_model(library, tiny, directory):
    """Return the source's digest and, per preset, the digest without and with importance (None: refused)."""
    source = tiny.write(directory / "source.gguf")
    results = {}
    for preset in PRESETS:
        results[preset] = []
        for weighed in (False, True):
            try:
                made = reference(library, source, directory / "made.gguf", tiny, preset, weighed=weighed)
                results[preset].append(digest(made))
            except RuntimeError:
                results[preset].append(None)
    return {"source": digest(source), "presets": results}


def record_option(library, model, preset, options, directory):
    source = MODELS[model].write(directory / "source.gguf")
    return digest(
        reference(
            library,
            source,
            directory / "made.gguf",
            MODELS[model],
            preset,
            weighed=True,
            options=options,
        )
    )


def main():
    library = LibLlama(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        models = {name: record_model(library, tiny, directory) for name, tiny in MODELS.items()}
        options = {name: record_option(library, *case, directory) for name, case in OPTIONS.items()}
    text = json.dumps({"models": models, "options": options}, indent=1)
    TARGET.write_text(re.sub(r"\[\s+(\S+)\s+(\S+)\s+\]", r"[\1 \2]", text) + "\n")


if __name__ == "__main__":
    main()
