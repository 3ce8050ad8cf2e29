"""Run llama.cpp in float32 throughout (cache included) on fixed tokens, apart from the process of the tests.

Each line of stdin is a JSON object: ``model``, ``tokens``, ``target`` and ``embed``. Logits at every
position, or with ``embed`` one unit vector, go to the file ``target``; then ``done`` goes to stdout.
"""

import json
import sys

import numpy as np

from terazi.runtime.llamacpp import library
from terazi.runtime.llamacpp.session import Session


def run(model, tokens, target, embed):
    session = Session(model, context=max(len(tokens), 64), threads=1, embedding=embed)
    tokens = np.array(tokens, np.int32)
    if embed:
        session.tokenize = lambda text, add_special: tokens
        np.save(target, session.embed([""]))
    else:
        np.save(target, session.logits(tokens))
    session.library.llama_free(session.context)
    session.library.llama_model_free(session.model)


def main():
    loaded = library.load()
    defaults = loaded.llama_context_default_params

    def in_float32():
        parameters = defaults()
        parameters.type_k = parameters.type_v = 0
        parameters.flash_attn_type = 0
        return parameters

    loaded.llama_context_default_params = in_float32
    for line in sys.stdin:
        run(**json.loads(line))
        print("done", flush=True)


if __name__ == "__main__":
    main()
