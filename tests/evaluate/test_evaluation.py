"""Measuring real models in llama.cpp: right figures, honest conditions, reuse, and refusals."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from importlib import import_module

import numpy as np
import pytest

from terazi.calibrate.corpus import evaluation_corpus
from terazi.errors import EngineError, FormatError, NotFoundError, UsageError
from terazi.evaluate import METRICS, evaluate, logprobs
from terazi.files import sha256
from terazi.formats import gguf, open_model
from terazi.runtime.llamacpp import open_engine

QUALITY = ("perplexity", "kl_divergence", "agreement")
SMALL = {"tokens": 192, "context": 64, "threads": 1}


@pytest.fixture
def no_engine(monkeypatch):
    """Make every attempt to start an engine fail."""

    def refuse(*_, **__):
        raise AssertionError("an engine was started")

    for module in ("language", "embeddings", "speed"):
        monkeypatch.setattr(import_module(f"terazi.evaluate.{module}"), "open_engine", refuse)


def by_metric(measured):
    return {measurement.metric: measurement for measurement in measured}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def measured(smaller, smollm2, folder):
    return by_metric(evaluate(smaller, reference=smollm2, metrics=QUALITY, cache=folder, **SMALL))


@pytest.fixture(scope="module")
def exact(smaller, smollm2):
    """Scored log-probabilities of both models in float64, straight from their logits."""
    found = []
    for path in (smollm2, smaller):
        with open_engine(path, context=64, threads=1) as engine:
            tokens = engine.tokenize(evaluation_corpus().text[:20000])[:192]
            logits = [engine.logits(tokens[start : start + 64]) for start in (0, 64, 128)]
        rows = np.concatenate([window[32:63] for window in logits]).astype(np.float64)
        found.append(rows - np.logaddexp.reduce(rows, axis=1, keepdims=True))
    following = np.concatenate([tokens[start + 33 : start + 64] for start in (0, 64, 128)])
    return *found, following


class TestQuality:
    def test_perplexity(self, measured, exact):
        _, ours, following = exact
        nll = -ours[np.arange(93), following]
        found = measured["perplexity"]
        assert found.value == pytest.approx(math.exp(nll.mean()), rel=1e-6)
        assert found.uncertainty == pytest.approx(found.value * nll.std() / math.sqrt(92), rel=1e-5)
        assert found.samples == 93

    def test_divergence_and_agreement(self, measured, exact):
        base, ours, _ = exact
        divergence = (np.exp(base) * (base - ours)).sum(axis=1)
        assert measured["kl_divergence"].value == pytest.approx(divergence.mean(), rel=0.01)
        assert measured["kl_divergence"].conditions["kld_p90"] == pytest.approx(
            np.percentile(divergence, 90), rel=0.01
        )
        same = base.argmax(axis=1) == ours.argmax(axis=1)
        assert measured["agreement"].value == pytest.approx(same.mean())

    def test_conditions(self, measured, smaller, smollm2):
        found = measured["kl_divergence"]
        assert found.artifact == sha256(smaller)
        given = found.conditions
        assert given["corpus_digest"] == evaluation_corpus().digest
        assert (given["context"], given["windows"], given["threads"]) == (64, 3, 1)
        assert given["reference_digest"] == sha256(smollm2)
        assert given["reference_quantized"] is True
        assert given["reference_types"][0] == "Q4_1"
        assert "xllamacpp" in given["runtime"]
        assert abs(given["floor"]) < 1e-5 < found.value
        assert given["floor_agreement"] == 1
        assert json.loads(json.dumps(found.to_dict())) == found.to_dict()

    def test_the_reference_against_itself_is_the_floor(self, measured, smollm2, folder):
        found = by_metric(evaluate(smollm2, reference=smollm2, metrics=QUALITY, cache=folder, **SMALL))
        assert found["kl_divergence"].value == measured["kl_divergence"].conditions["floor"]
        assert found["agreement"].value == 1

    def test_reuse(self, measured, smaller, smollm2, folder, no_engine):
        again = by_metric(evaluate(smaller, reference=smollm2, metrics=QUALITY, cache=folder, **SMALL))
        assert again == measured
        with pytest.raises(AssertionError, match="engine was started"):
            evaluate(smaller, reference=smollm2, metrics=QUALITY, cache=folder, **(SMALL | {"tokens": 128}))

    def test_a_renamed_copy_is_the_same_model(self, measured, smaller, smollm2, folder, tmp_path, no_engine):
        copy = tmp_path / "copy.gguf"
        os.link(smaller, copy)
        again = by_metric(evaluate(copy, reference=smollm2, metrics=QUALITY, cache=folder, **SMALL))
        assert again == measured

    def test_damaged_cache_files_are_made_anew(self, measured, smaller, smollm2, folder, tmp_path):
        for file in folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes()[:-9])
        again = by_metric(evaluate(smaller, reference=smollm2, metrics=QUALITY, cache=tmp_path, **SMALL))
        assert {name: found.value for name, found in again.items()} == {
            name: found.value for name, found in measured.items()
        }
        (file,) = tmp_path.glob("*.kld")
        assert logprobs.open_file(file).context == 64

    def test_progress(self, smaller, tmp_path, reports):
        evaluate(smaller, metrics=["perplexity"], cache=tmp_path, progress=reports, **SMALL)
        assert [call[1:] for call in reports.calls] == [(done, 192, "tokens") for done in (0, 64, 128, 192)]


def test_perplexity_of_transformers(reference_9m, reference_gguf, hamlet, tmp_path):
    """The same figure from PyTorch in float32; llama.cpp keeps keys and values in 16 bits."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (found,) = evaluate(
        reference_gguf, text=hamlet, tokens=1024, threads=1, metrics=["perplexity"], cache=tmp_path
    )
    model = AutoModelForCausalLM.from_pretrained(reference_9m, dtype=torch.float32)
    tokens = AutoTokenizer.from_pretrained(reference_9m)(hamlet.read_text()[:20000])["input_ids"][:1024]
    nll = []
    for window in torch.tensor(tokens).reshape(2, 512):
        with torch.no_grad():
            log = model(window[None]).logits[0].double().log_softmax(-1)
        nll.append(-log[256:511].gather(1, window[257:, None]))
    expected = math.exp(torch.cat(nll).mean())
    assert found.samples == 2 * 255
    assert found.value == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("pieces", [[2], [1, 1]], ids=["two pieces", "three pieces"])
def test_windows_and_pieces(pieces, reports):
    """The begin token takes the first place, as in llama-perplexity; the last position predicts nothing."""
    from terazi.evaluate.language import _following, _run

    class Fake:
        begin_token = 7

        def stream_logits(self, windows, *, first):
            assert windows.tolist() == [[7, 1, 2, 3, 4], [7, 6, 7, 8, 9]]
            for window in windows:
                logits = np.repeat(window[first:, None], 10, axis=1).astype(np.float32)
                yield from np.split(logits, np.cumsum(pieces)[: len(pieces)])

    cut = np.arange(10, dtype=np.int32).reshape(2, 5)
    seen = [
        (int(logits[n, 0]), int(_following(cut)[window, rows][n]))
        for window, rows, logits in _run(Fake(), cut, "x", reports)
        for n in range(len(logits))
    ]
    assert seen == [(2, 3), (3, 4), (7, 8), (8, 9)]
    assert [done for _, done, _, _ in reports.calls] == [0, 5, 10]


def test_smaller_types_are_further_away(reference_gguf, reference_q2, hamlet, tmp_path):
    found = by_metric(
        evaluate(
            reference_q2, reference=reference_gguf, text=hamlet, tokens=1024, threads=1, cache=tmp_path,
            metrics=QUALITY,
        )
    )  # fmt: skip
    divergence = found["kl_divergence"]
    assert divergence.value > 20 * divergence.conditions["floor"]
    assert divergence.value > 3 * divergence.uncertainty
    assert divergence.conditions["log_ratio"] > 0
    assert found["agreement"].value < 0.99
    assert divergence.conditions["reference_quantized"] is False


class TestEmbeddings:
    @pytest.fixture
    def text(self, tmp_path):
        path = tmp_path / "sentences.txt"
        path.write_text(evaluation_corpus().text[:16000])
        return path

    def test_variant(self, minilm_gguf, minilm_q4, text, tmp_path):
        metrics = set(METRICS) - {"prefill_speed", "decode_speed", "latency", "load_time", "peak_memory"}
        found = by_metric(
            evaluate(
                minilm_q4, reference=minilm_gguf, text=text, cache=tmp_path, threads=1, metrics=metrics,
            )
        )  # fmt: skip
        assert 0.9 < found["cosine"].value < 0.9999
        assert found["cosine"].conditions["minimum"] < found["cosine"].value
        assert 30 < found["cosine"].samples == found["cosine"].conditions["sentences"] <= 128
        assert 0.9 < found["rank_correlation"].value < 1
        assert set(found) == {"size", "bits_per_weight", "cosine", "rank_correlation"}

    def test_a_model_that_writes_is_no_reference(self, minilm_q4, reference_gguf, tmp_path):
        with pytest.raises(UsageError, match="writes text"):
            evaluate(minilm_q4, reference=reference_gguf, cache=tmp_path, metrics=["cosine"])

    def test_itself(self, minilm_q4, text, tmp_path):
        metrics = ("cosine", "rank_correlation")
        found = evaluate(minilm_q4, reference=minilm_q4, text=text, cache=tmp_path, metrics=metrics)
        assert [measurement.value for measurement in found] == pytest.approx([1, 1], abs=1e-6)

    def test_speed(self, minilm_gguf, tmp_path):
        found = by_metric(evaluate(minilm_gguf, context=64, threads=1, cache=tmp_path))
        assert found["prefill_speed"].value > 0
        assert found["latency"].conditions["percentile_95"] >= found["latency"].value > 0
        assert {"decode_speed", "perplexity"}.isdisjoint(found)

    def test_rank_correlation_with_ties(self):
        from terazi.evaluate.embeddings import rank_correlation

        a, b = np.array([1.0, 2, 2, 3, 9]), np.array([0.5, 7, 3, 3, 4])
        # mean ranks: 1 2.5 2.5 4 5 and 1 5 2.5 2.5 4
        assert rank_correlation(a, b) == pytest.approx(
            np.corrcoef([1, 2.5, 2.5, 4, 5], [1, 5, 2.5, 2.5, 4])[0, 1]
        )
        assert rank_correlation(a, np.exp(a)) == pytest.approx(1)
        assert rank_correlation(a, -a) == pytest.approx(-1)


class TestSpeed:
    def test_figures(self, reference_gguf, tmp_path):
        found = by_metric(evaluate(reference_gguf, context=64, threads=1, cache=tmp_path))
        others = {"kl_divergence", "agreement", "cosine", "rank_correlation", "latency"}
        assert set(found) == set(METRICS) - others
        assert found["size"].value == reference_gguf.stat().st_size
        assert found["bits_per_weight"].value == pytest.approx(32, abs=0.01)
        assert found["prefill_speed"].value > found["decode_speed"].value > 0
        assert found["decode_speed"].uncertainty >= 0
        assert 3 <= found["decode_speed"].samples <= 7
        assert found["prefill_speed"].conditions["tokens"] == 64
        assert found["load_time"].value > 0
        # All weights are read once, whether mapped or copied; the rest is the cache and working buffers.
        assert found["size"].value * 0.9 < found["peak_memory"].value < found["size"].value + 60e6
        assert 0 < found["decode_speed"].conditions["processor_share"] <= 1.1

    def test_memory_grows_with_the_context(self, reference_gguf, tmp_path):
        peaks = [
            evaluate(reference_gguf, context=context, threads=1, cache=tmp_path, metrics=["peak_memory"])
            for context in (64, 8192)
        ]
        config = open_model(reference_gguf).config
        per_token = 2 * 2 * sum(config.head_counts_kv) * config.key_length
        assert peaks[1][0].value - peaks[0][0].value > 0.5 * per_token * (8192 - 64)

    def test_median(self):
        from terazi.evaluate.speed import median

        assert median([4.0]) == (4.0, 0.0)
        value, error = median([1.0, 2.0, 9.0])
        assert value == 2
        assert error == pytest.approx(1.2533 * np.std([1, 2, 9], ddof=1) / math.sqrt(3))


class TestRefusals:
    @pytest.mark.parametrize(
        ("asked", "error"),
        [
            ({"metrics": ["speed"]}, "unknown metric 'speed'"),
            ({"context": 8}, "windows of 8"),
            ({"tokens": 0}, "0 tokens"),
            ({"text": "/nonexistent.txt"}, "no such file"),
        ],
    )
    def test_arguments(self, smollm2, asked, error):
        with pytest.raises((UsageError, NotFoundError), match=error):
            evaluate(smollm2, **asked)

    def test_texts(self, smollm2, tmp_path):
        text = tmp_path / "short.txt"
        text.write_text("Too short.")
        with pytest.raises(UsageError, match=r"short.txt: \d tokens are too few for two windows of 512"):
            evaluate(smollm2, text=text, metrics=["perplexity"], cache=tmp_path, threads=1)
        text.write_bytes(b"\xff\xfe")
        with pytest.raises(UsageError, match="not UTF-8"):
            evaluate(smollm2, text=text, metrics=["perplexity"], cache=tmp_path)

    def test_no_model(self, tmp_path):
        (tmp_path / "text.gguf").write_text("not a model")
        with pytest.raises(FormatError):
            evaluate(tmp_path / "text.gguf")

    def test_another_tokenizer(self, smollm2, reference_gguf, tmp_path):
        with pytest.raises(UsageError, match="different tokens"):
            evaluate(smollm2, reference=reference_gguf, metrics=QUALITY, cache=tmp_path, **SMALL)

    def test_a_model_without_numbers(self, reference_gguf, tmp_path):
        """NaN in one weight: the engine answers, and the answer is refused."""
        from terazi.model import Tensor

        model = open_model(reference_gguf)
        norm = model.tensors["output_norm.weight"]
        nan = np.full(norm.shape, np.nan, np.float32).view(np.uint8)[None]
        broken = Tensor(name=norm.name, shape=norm.shape, type="F32", read=lambda a, b: nan[a:b])
        tensors = [broken if name == norm.name else tensor for name, tensor in model.tensors.items()]
        path = tmp_path / "broken.gguf"
        gguf.write(path, model.metadata, tensors)
        for reference in (None, reference_gguf):
            with pytest.raises(EngineError, match="something other than numbers"):
                evaluate(path, reference=reference, metrics=QUALITY, cache=tmp_path, **SMALL)
        assert not list(tmp_path.glob(".*"))


COMMAND = [sys.executable, "-m", "terazi", "evaluate"]


class TestCommand:
    def run(self, *arguments):
        return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)

    def test_table_and_json(self, reference_gguf, reference_q2):
        options = ["--reference", reference_q2, "--tokens", 128, "--context", 64, "--threads", 1]
        shown = self.run(reference_gguf, *options)
        assert shown.returncode == 0, shown.stderr
        assert "KL divergence to the reference" in shown.stdout
        assert "tokens/s" in shown.stdout
        assert " ± " in shown.stdout
        assert "the reference is itself quantized (Q2_K)" in shown.stdout
        document = json.loads(self.run(reference_gguf, *options, "--json").stdout)
        assert set(document) == {"model", "reference", "measurements"}
        metrics = [measurement["metric"] for measurement in document["measurements"]]
        assert metrics == [name for name in METRICS if name not in ("cosine", "rank_correlation", "latency")]

    @pytest.mark.parametrize(
        ("arguments", "code"), [(["none.gguf"], 1), (["--context", "4", "x"], 2), ([], 2)]
    )
    def test_mistakes(self, arguments, code):
        done = self.run(*arguments)
        assert done.returncode == code
        assert "Traceback" not in done.stderr

    def test_interrupted_and_run_again(self, smollm2, tmp_path, monkeypatch):
        """Ctrl-C leaves no half file; what was finished is there for the next run."""
        monkeypatch.setenv("TERAZI_HOME", str(tmp_path))
        options = ["--reference", smollm2, "--tokens", 100000, "--context", 64, "--threads", 1]
        with subprocess.Popen(
            [*COMMAND, str(smollm2), *map(str, options)], stderr=subprocess.PIPE, text=True
        ) as running:
            cache = tmp_path / "cache"
            end = time.monotonic() + 30
            while not list(cache.glob(".*.part")) and time.monotonic() < end:
                time.sleep(0.05)
            running.send_signal(signal.SIGINT)
            assert running.stderr is not None
            message = running.stderr.read()
        assert running.returncode == 130
        assert "run the same command again" in message
        assert list(cache.iterdir()) == []


def test_windows_are_no_longer_than_the_training(smollm2, tmp_path):
    model = open_model(smollm2)
    facts = dict(model.metadata) | {"llama.context_length": np.uint32(64)}
    short = gguf.write(tmp_path / "short.gguf", facts, list(model.tensors.values()))
    measured = evaluate(short, tokens=128, threads=1, metrics=["perplexity"], cache=tmp_path / "cache")
    assert measured[0].conditions["context"] == 64
