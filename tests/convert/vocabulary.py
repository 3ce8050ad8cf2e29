"""Tokenize a JSON list of texts from stdin with the vocabulary of a GGUF file; prints lists of ids."""

import ctypes
import json
import sys

import numpy as np

from terazi.runtime.llamacpp import library


def main(path, add_special):
    c = library.load()
    parameters = c.llama_model_default_params()
    parameters.vocab_only = True
    model = c.llama_model_load_from_file(path.encode(), parameters)
    assert model, "llama.cpp cannot load the vocabulary"
    vocabulary = c.llama_model_get_vocab(model)
    result = []
    for text in json.load(sys.stdin):
        data = text.encode()
        tokens = np.empty(len(data) + 16, np.int32)
        pointer = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = c.llama_tokenize(
            vocabulary, data, len(data), pointer, len(tokens), bool(int(add_special)), False
        )
        result.append(tokens[:count].tolist())
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
