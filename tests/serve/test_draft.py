"""Speculative decoding: the same answers, from a draft model or from the conversation itself."""

import json
import os
import subprocess
import sys
import urllib.request

import pytest

from terazi.errors import NotFoundError, UnsupportedError
from terazi.formats import gguf, open_model
from terazi.registry import Store
from terazi.serve.create import create
from terazi.serve.draft import check_draft
from terazi.serve.modelfile import parse

MODEL = "smollm2:135m"
SENTENCE = "The quick brown fox jumps over the lazy dog near the river bank. "
PROMPTS = ["Once upon a time, a cat", SENTENCE * 6]


@pytest.fixture(scope="module")
def small(smollm2, tmp_path_factory):
    from terazi.quantize import apply, make_plan

    source = open_model(smollm2)
    output = tmp_path_factory.mktemp("draft") / "smollm2-Q2_K.gguf"
    apply(make_plan(source, "Q2_K"), source, output, threads=1)
    return output


@pytest.fixture(scope="module")
def guessing(start, home, small):
    """A server whose models of one base guess by a draft model, by repetition, and not at all."""
    store = Store(home)
    store.add(small, "smollm2:small", share="copy")
    create(parse(f"FROM {MODEL}\nPARAMETER draft_model smollm2:small"), "drafted", store=store)
    create(parse(f"FROM {MODEL}\nPARAMETER draft_model ngram"), "repeating", store=store)
    yield start("--context", 512, "--parallel", 1)
    for name in ("smollm2:small", "drafted", "repeating"):
        store.remove(name)


def complete(server, model, prompt, tokens=16):
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "cache_prompt": False}
    request = urllib.request.Request(f"{server.url}/v1/completions", json.dumps(body).encode())
    answer = json.loads(urllib.request.urlopen(request, timeout=120).read())
    return answer["choices"][0]["text"], answer["timings"]


def test_answers_stay_and_guesses_are_counted(guessing):
    plain = [complete(guessing, MODEL, prompt)[0] for prompt in PROMPTS]
    for model in ("drafted", "repeating"):
        answers = [complete(guessing, model, prompt) for prompt in PROMPTS]
        assert [text for text, _ in answers] == plain
        drafted = sum(timings.get("draft_n", 0) for _, timings in answers)
        accepted = sum(timings.get("draft_n_accepted", 0) for _, timings in answers)
        assert drafted >= accepted > 0
        name = f"{model}:latest"
        assert guessing.metric("terazi_tokens_total", model=name, kind="drafted") == drafted
        assert guessing.metric("terazi_tokens_total", model=name, kind="accepted") == accepted
    assert guessing.metric("terazi_tokens_total", model=MODEL, kind="drafted") == 0


def test_a_draft_on_the_command_line(start, home, small):
    server = start(MODEL, "--draft", small, "--context", 256, "--parallel", 1, "--gpu-layers", 0)
    _, timings = complete(server, MODEL, PROMPTS[0], tokens=8)
    assert timings["draft_n"] > 0


def test_a_draft_that_does_not_fit_ends_it_at_once(home, two_layers, tmp_path):
    model = open_model(two_layers)
    other = gguf.write(
        tmp_path / "other.gguf",
        {**model.metadata, "tokenizer.ggml.pre": "qwen2"},
        list(model.tensors.values()),
    )
    done = subprocess.run(
        [sys.executable, "-m", "terazi", "serve", MODEL, "--port", "0", "--draft", str(other)],
        env=os.environ | {"TERAZI_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "cannot draft for" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_draft_model_is_kept_with_the_model(home, small, tmp_path):
    store = Store(tmp_path)
    store.add(Store(home).resolve(MODEL), "big:1", share="copy")
    made = create(parse(f"FROM big:1\nPARAMETER draft_model {small}"), "one", store=store)
    assert [file.role for file in made.manifest.files] == ["weights", "draft"]
    again = create(parse("FROM one\nPARAMETER draft_model ngram"), "two", store=store)
    assert [file.role for file in again.manifest.files] == ["weights"]
    with pytest.raises(NotFoundError):
        create(parse("FROM big:1\nPARAMETER draft_model absent:1"), "three", store=store)


def test_local_files_are_not_named_over_the_network(home, small, tmp_path):
    from terazi.errors import TeraziError

    store = Store(tmp_path)
    store.add(small, "big:1", share="copy")
    with pytest.raises(TeraziError):
        create(parse(f"FROM big:1\nPARAMETER draft_model {small}"), "x", store=store, local_files=False)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("tokenizer.ggml.model", "llama", "kinds of tokenizer"),
        ("tokenizer.ggml.pre", "qwen2", "ways to split words"),
        ("tokenizer.ggml.eos_token_id", 7, "different EOS tokens"),
        ("tokenizer.ggml.tokens", lambda tokens: tokens[:40000], "49152 and 40000 tokens"),
        ("tokenizer.ggml.tokens", lambda tokens: [*tokens[:9], "x", *tokens[10:]], "token 9 is"),
    ],
)
def test_other_vocabularies_are_refused(smollm2, key, value, words):
    from dataclasses import replace

    model = open_model(smollm2)
    changed = value(model.metadata[key]) if callable(value) else value
    with pytest.raises(UnsupportedError, match=words):
        check_draft(model, replace(model, metadata={**model.metadata, key: changed}))
    longer = {**model.metadata, "tokenizer.ggml.tokens": [*model.metadata["tokenizer.ggml.tokens"], "<more>"]}
    check_draft(model, replace(model, metadata=longer))


def test_an_embedding_model_drafts_nothing(smollm2, minilm):
    with pytest.raises(UnsupportedError, match="draft model must be"):
        check_draft(open_model(smollm2), open_model(minilm))
