"""Run llama.cpp in float32 throughout (cache included) on fixed tokens, apart from the process of the tests.

    python exact.py MODEL.gguf INPUT.npz OUTPUT.npy [embed]

Without ``embed``: logits at every position of ``tokens``. With it: one unit vector for ``tokens``.
"""

import sys

import numpy as np

from terazi.runtime.llamacpp import library
from terazi.runtime.llamacpp.session import Session


def main(model, source, target, mode="logits"):
    loaded = library.load()
    defaults = loaded.llama_context_default_params

    def in_float32():
        parameters = defaults()
        parameters.type_k = parameters.type_v = 0
        parameters.flash_attn_type = 0
        return parameters

    loaded.llama_context_default_params = in_float32
    tokens = np.load(source)["tokens"].astype(np.int32)
    session = Session(model, context=max(len(tokens), 64), threads=1, embedding=mode == "embed")
    if mode == "embed":
        session.tokenize = lambda text, add_special: tokens
        np.save(target, session.embed([""]))
    else:
        np.save(target, session.logits(tokens))


if __name__ == "__main__":
    main(*sys.argv[1:])
