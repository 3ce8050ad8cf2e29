"""A tiny real tokenizer, random models with it, and llama.cpp in float32 to compare with."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from terazi.convert.gguf import to_gguf
from terazi.formats import gguf, open_model

VOCABULARY = 320


@pytest.fixture(scope="session")
def words():
    """English text from the standard library."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))[:60_000]


@pytest.fixture(scope="session")
def byte_level(words):
    """A byte-level BPE tokenizer of `VOCABULARY` tokens, as tokenizer.json text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([words], trainer)
    return tokenizer.to_str()


@pytest.fixture
def save(tmp_path, byte_level):
    """Write a transformers model with random weights and the tiny tokenizer; returns the directory.

    The weights are large enough that attention looks at few positions: with the usual small ones it averages
    over all, and a wrongly rotated head would go unnoticed.
    """

    def write(model, tokenizer=byte_level, **stated):
        directory = tmp_path / "hf"
        randomize(model)
        model.save_pretrained(directory)
        (directory / "tokenizer.json").write_text(tokenizer, "utf-8")
        stated = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"} | stated
        stated["tokenizer_class"] = "PreTrainedTokenizerFast"
        (directory / "tokenizer_config.json").write_text(json.dumps(stated))
        return directory

    return write


def randomize(model):
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            if parameter.ndim < 2:
                parameter.add_(noise * 0.2)
            elif "embed" in name or "wte" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(noise * 1.5 / math.sqrt(parameter.shape[-1]))
        stored = model.state_dict()
        for name, buffer in model.named_buffers():
            if name in stored and buffer.is_floating_point():
                buffer.add_(torch.randn_like(buffer) * 0.2)


@pytest.fixture
def convert(tmp_path):
    """Convert a directory and write it; returns the GGUF file."""

    def run(directory, **options):
        model = to_gguf(open_model(directory), **options)
        return gguf.write(tmp_path / "model.gguf", model.metadata, list(model.tensors.values()), force=True)

    return run


class Worker:
    """`exact.py` in a process of its own, started again when a model has killed it."""

    def __init__(self, log):
        self.log = log
        self.process = None

    def run(self, **request):
        if self.process is None or self.process.poll() is not None:
            script = Path(__file__).with_name("exact.py")
            self.stop()
            with self.log.open("w") as log:
                self.process = subprocess.Popen(
                    [sys.executable, script],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n", self.log.read_text()[-3000:]

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture(scope="session")
def worker(tmp_path_factory):
    started = Worker(tmp_path_factory.mktemp("exact") / "log")
    yield started
    started.stop()


@pytest.fixture
def llama_cpp(tmp_path, worker):
    """Run llama.cpp in float32 on tokens; returns logits, or with ``embed`` a unit vector."""

    def run(path, tokens, embed=False):
        target = tmp_path / "result.npy"
        worker.run(model=str(path), tokens=[int(token) for token in tokens], target=str(target), embed=embed)
        return np.load(target)

    return run
