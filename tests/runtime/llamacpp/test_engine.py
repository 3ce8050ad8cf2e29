"""The llama.cpp engine on a real model: what it computes, and how it fails."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from terazi.errors import EngineError, NotFoundError, UsageError
from terazi.runtime.llamacpp import open_engine

TEXT = "The quick brown fox jumps over the lazy dog. Ünïcode — 你好 🙂"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def engine(smollm2):
    with open_engine(smollm2, context=256, threads=1) as opened:
        yield opened


@pytest.fixture
def own(smollm2):
    """Return an engine that a test may break."""
    with open_engine(smollm2, context=256, threads=1, timeout=20) as opened:
        yield opened


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def eventually(condition, seconds=8):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


class TestTokens:
    def test_round_trip(self, engine):
        assert engine.detokenize(engine.tokenize(TEXT)) == TEXT

    def test_special_tokens_in_text_stay_text(self, engine):
        assert len(engine.tokenize("<|im_end|>")) > 1

    def test_empty(self, engine):
        assert engine.tokenize("") == []
        assert engine.detokenize([]) == ""

    @pytest.mark.parametrize("tokens", [[-1], [49152], [2**31 - 1]])
    def test_tokens_outside_the_vocabulary(self, engine, tokens):
        with pytest.raises(EngineError, match="outside the vocabulary"):
            engine.detokenize(tokens)
        with pytest.raises(EngineError, match="outside the vocabulary"):
            engine.logits(tokens)


class TestLogits:
    def test_every_position_predicts_its_next_token(self, engine):
        tokens = engine.tokenize(" A red fox met a grey owl." * 3)
        logits = engine.logits(tokens)
        assert logits.shape == (len(tokens), engine.vocabulary)
        assert logits.dtype == np.float32
        repeated = 2 * len(tokens) // 3
        assert logits[repeated:-1].argmax(axis=1).tolist() == tokens[repeated + 1 :]

    def test_later_tokens_do_not_matter_and_calls_do_not_mix(self, engine):
        tokens = engine.tokenize(TEXT)
        whole = engine.logits(tokens)
        engine.logits(tokens[::-1])
        np.testing.assert_array_equal(engine.logits(tokens), whole)
        np.testing.assert_allclose(engine.logits(tokens[:6]), whole[:6], atol=0.1)
        np.testing.assert_array_equal(engine.logits(tokens, first=5), whole[5:])

    def test_a_prompt_in_several_batches_is_one_prompt(self, smollm2):
        code = f"""
            import numpy as np
            from terazi.runtime.llamacpp import session as module
            from terazi.runtime.llamacpp.session import Session
            session = Session({str(smollm2)!r}, context=256, threads=1)
            tokens = session.tokenize("a long sentence " * 20, add_special=True)
            whole = session.logits(tokens, first=10)
            session._batch_size = 16
            module._PIECE_VALUES = 5 * session.vocabulary_size
            lengths = [len(piece) for piece in session.stream(tokens, first=10)]
            assert max(lengths) == 5, lengths
            pieces = session.logits(tokens, first=10)
            assert whole.shape == pieces.shape
            assert np.abs(whole - pieces).max() < 0.2, np.abs(whole - pieces).max()
            assert (whole.argmax(1) == pieces.argmax(1)).mean() > 0.95
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)

    @pytest.mark.parametrize(("count", "first"), [(0, 0), (257, 0), (5, 5), (5, -1)])
    def test_what_does_not_fit(self, engine, count, first):
        with pytest.raises(EngineError, match="do not fit a context of 256"):
            engine.logits([1] * count, first=first)

    def test_streamed_windows(self, engine):
        tokens = engine.tokenize(TEXT)
        windows = np.array([tokens[:12], tokens[2:14]], np.int32)
        streamed = list(engine.stream_logits(windows, first=6))
        for window, logits in zip(windows, streamed, strict=True):
            np.testing.assert_array_equal(logits, engine.logits(window.tolist(), first=6))

    def test_a_second_call_inside_a_stream_is_refused(self, own):
        stream = own.stream_logits(np.ones((3, 4), np.int32))
        next(stream)
        with pytest.raises(EngineError, match="busy"):
            own.tokenize("x")


class TestGeneration:
    def test_same_answer_as_llama_cpp_s_server(self, engine, smollm2):
        """Template, special tokens and greedy choice agree with the server in the same shared object."""
        code = f"""
            import json, sys, xllamacpp
            parameters = xllamacpp.CommonParams()
            parameters.model.path = {str(smollm2)!r}
            parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 256, 1, 1
            server = xllamacpp.Server(parameters)
            request = {{"messages": {QUESTION!r}, "temperature": 0, "max_tokens": 24}}
            reply = server.handle_chat_completions(request)
            json.dump([reply["choices"][0]["message"]["content"], reply["usage"]], sys.stderr)
            print("RESULT", json.dumps([reply["choices"][0]["message"]["content"], reply["usage"]]))
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True
        )
        import json

        line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
        content, usage = json.loads(line.removeprefix("RESULT "))
        answer = engine.generate(QUESTION, max_tokens=24, temperature=0)
        assert answer.text == content
        assert (answer.prompt_tokens, answer.tokens) == (usage["prompt_tokens"], usage["completion_tokens"])

    def test_pieces_make_the_text_and_a_seed_repeats_it(self, engine):
        pieces = []
        first = engine.generate("Once upon a time", max_tokens=12, seed=5, on_text=pieces.append)
        assert "".join(pieces) == first.text
        assert len(pieces) > 3
        assert first.tokens == 12
        assert first.ending == "length"
        assert first.prompt_speed > 0
        assert first.decode_speed > 0
        assert engine.generate("Once upon a time", max_tokens=12, seed=5).text == first.text
        others = {engine.generate("Once upon a time", max_tokens=12, seed=seed).text for seed in range(6, 9)}
        assert others != {first.text}

    def test_it_stops_where_the_model_ends(self, engine):
        answer = engine.generate(
            [{"role": "user", "content": "Say only: yes"}], max_tokens=200, temperature=0
        )
        assert answer.ending == "stop"
        assert "<|im_end|>" not in answer.text

    def test_the_context_is_a_limit(self, engine):
        assert engine.generate("word " * 250, max_tokens=50).tokens <= 6
        with pytest.raises(EngineError, match="the prompt has 301 tokens and the context 256"):
            engine.generate("word " * 300)

    def test_an_error_leaves_the_engine_usable(self, engine):
        with pytest.raises(EngineError, match="template failed"):
            engine.generate([{"no": "content"}])
        assert engine.tokenize("still here")


class TestEmbedding:
    def test_unit_vectors_that_mean_something(self, smollm2):
        texts = ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose again."]
        with open_engine(smollm2, context=64, threads=1, embedding=True) as engine:
            vectors = engine.embed(texts)
            alone = engine.embed(texts[1:2])
            many = engine.embed(texts * 9)
            with pytest.raises(EngineError, match="text 1 has"):
                engine.embed(["short", "long " * 100])
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(alone[0] @ vectors[1], 1, atol=1e-3)
        np.testing.assert_allclose((many.reshape(9, 3, -1) * vectors).sum(axis=2), 1, atol=1e-3)
        assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]

    def test_a_context_of_few_tokens(self, smollm2):
        """Shorter than the number of texts that a longer context takes at once."""
        with open_engine(smollm2, context=16, threads=1, embedding=True) as engine:
            assert engine.embed(["A cat", "A dog"]).shape == (2, 576)


class TestMeasuring:
    def test_memory_and_load_time(self, engine, smollm2):
        size = smollm2.stat().st_size
        assert size < engine.peak_memory - engine.base_memory < 3 * size
        assert 0 < engine.load_time < 60

    def test_timings(self, engine):
        timings = engine.time(prompt_tokens=32, decode_tokens=3, repeats=9, seconds=0)
        assert len(timings.prompt_seconds) == len(timings.decode_seconds) == 3
        assert min(timings.prompt_seconds + timings.decode_seconds) > 0
        assert 0 < timings.processor_share < 1.2
        assert engine.time(prompt_tokens=8, decode_tokens=0, repeats=2, seconds=9).decode_seconds == ()


class TestRefusals:
    def test_missing_and_damaged_files(self, tmp_path, smollm2):
        with pytest.raises(NotFoundError):
            open_engine(tmp_path / "none.gguf")
        short = tmp_path / "short.gguf"
        with smollm2.open("rb") as file:
            short.write_bytes(file.read(4_000_000))
        with pytest.raises(EngineError, match=r"cannot load .*short\.gguf: .*(bounds|corrupted|read)"):
            open_engine(short, threads=1)

    def test_more_memory_than_there_is(self, smollm2):
        """The cache of keys and values would take 369 GB: refused at once, and nothing is filled before."""
        with pytest.raises(EngineError, match=r"context of 16000000 tokens: .*alloc"):
            open_engine(smollm2, context=16_000_000, threads=1)

    @pytest.mark.parametrize("asked", [{"context": 0}, {"context": (1 << 24) + 1}, {"threads": 0}])
    def test_nonsense(self, smollm2, asked):
        with pytest.raises(UsageError):
            open_engine(smollm2, **asked)


class TestDeath:
    """Whatever happens to the child, the parent gets a sentence."""

    @pytest.mark.parametrize(
        ("number", "told"),
        [
            (signal.SIGSEGV, r"crashed \(SIGSEGV\) during 'generate'"),
            (signal.SIGABRT, r"crashed \(SIGABRT\) during 'generate'"),
            (signal.SIGKILL, r"killed \(SIGKILL\) during 'generate', most likely out of memory"),
        ],
    )
    def test_signals(self, own, number, told):
        with pytest.raises(EngineError, match=told):
            own.generate("Once", max_tokens=200, on_text=lambda text: os.kill(own.pid, number))
        with pytest.raises(EngineError, match="closed"):
            own.tokenize("x")

    def test_silence_is_limited(self, smollm2):
        with open_engine(smollm2, context=64, threads=1, timeout=3) as engine:
            os.kill(engine.pid, signal.SIGSTOP)
            with pytest.raises(EngineError, match="no answer to 'tokenize' for 3 s"):
                engine.tokenize("x")

    def test_leaving_a_stream_early_leaves_the_engine_ready(self, own):
        for _ in own.stream_logits(np.ones((50, 200), np.int32)):
            break
        assert own.tokenize("x")

    def test_an_answer_can_be_interrupted(self, own):
        heard = []

        def listen(text):
            heard.append(text)
            if len(heard) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            own.generate("Once", max_tokens=200, on_text=listen)
        assert len(heard) == 3
        assert own.generate("Once", max_tokens=2, temperature=0).tokens == 2

    def test_close_twice(self, smollm2):
        engine = open_engine(smollm2, context=64, threads=1)
        engine.close()
        engine.close()
        assert not alive(engine.pid)
        with pytest.raises(EngineError, match="closed"):
            engine.tokenize("x")


PARENT = """
from terazi.runtime.llamacpp import open_engine
with open_engine({path!r}, context=4096, threads=1) as engine:
    print(engine.pid, flush=True)
    engine.generate("Once", max_tokens=4000, temperature=1.5)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_no_orphans(smollm2, number):
    """However the parent ends, in the middle of a call, its child ends too."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(path=str(smollm2))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.5)
        assert alive(child)
        parent.send_signal(number)
        assert eventually(lambda: parent.poll() is not None)
    assert eventually(lambda: not alive(child))


def test_two_threads_take_turns(own):
    results = {}

    def work(number):
        results[number] = own.detokenize(own.tokenize(f"text {number}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"text {number}" for number in range(6)}
