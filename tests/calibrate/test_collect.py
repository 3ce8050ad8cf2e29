"""Collecting: chunks, the begin token, interruption and continuing, the command line."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import terazi
from terazi.calibrate import Corpus, collect, load, save
from terazi.cli.calibrate import command
from terazi.errors import EngineError, ExistsError, TeraziError, UsageError
from terazi.formats import open_model

OPTIONS = {"context": 64, "threads": 1}


@pytest.fixture(scope="session")
def model(experts, as_gguf):
    return as_gguf(experts)


@pytest.fixture
def corpus(words):
    return Corpus("words", words[:2000])


class Interrupted(Exception):
    pass


def interrupting(after):
    """A progress that stops the run when ``after`` tokens are done, as Ctrl-C would."""

    def progress(task, done, total, *, unit=""):
        if done == after:
            raise Interrupted

    return progress


def test_continuing_gives_the_same_bytes(model, corpus, tmp_path, monkeypatch):
    from importlib import import_module

    monkeypatch.setattr(import_module("terazi.calibrate.collect"), "_SECONDS_BETWEEN_SAVES", -1.0)
    whole = collect(model, corpus, chunks=6, **OPTIONS)
    state = tmp_path / "state"
    with pytest.raises(Interrupted):
        collect(model, corpus, chunks=6, state=state, progress=interrupting(4 * 64), **OPTIONS)
    assert state.is_file()
    seen = []
    continued = collect(
        model,
        corpus,
        chunks=6,
        state=state,
        progress=lambda t, done, total, unit="": seen.append(done),
        **OPTIONS,
    )
    assert seen[0] == 3 * 64  # the fourth chunk was done, but not saved yet
    assert continued.digest == whole.digest
    assert not state.exists()
    a, b = (save(tmp_path / name, found).read_bytes() for name, found in (("a", whole), ("b", continued)))
    assert a == b


@pytest.mark.parametrize("change", ["text", "context", "damage"])
def test_the_state_of_something_else_is_not_used(change, model, corpus, tmp_path, monkeypatch):
    from importlib import import_module

    monkeypatch.setattr(import_module("terazi.calibrate.collect"), "_SECONDS_BETWEEN_SAVES", -1.0)
    state = tmp_path / "state"
    with pytest.raises(Interrupted):
        collect(model, corpus, chunks=4, state=state, progress=interrupting(3 * 64), **OPTIONS)
    options = dict(OPTIONS)
    if change == "text":
        corpus = Corpus("words", corpus.text[100:])
    elif change == "context":
        options["context"] = 32
    else:
        state.write_bytes(state.read_bytes()[:-2000])
    seen = []
    collect(model, corpus, chunks=4, state=state, progress=lambda t, d, n, unit="": seen.append(d), **options)
    assert seen[0] == 0


def test_counts_are_tokens(model, corpus):
    found = collect(model, corpus, chunks=3, **OPTIONS)
    assert found.sums["blk.0.attn_q.weight"].counts.tolist() == [192]
    assert (found.chunks, found.chunk_size) == (3, 64)
    assert found.datasets == ("words",)
    assert found.text_digests == (corpus.digest,)
    everything = collect(model, corpus, **OPTIONS)
    assert everything.chunks > 6


def test_a_text_that_is_too_short(model):
    with pytest.raises(UsageError, match="less than one chunk"):
        collect(model, Corpus("short", "Hello."), **OPTIONS)


def test_a_model_that_llama_cpp_refuses(model, corpus, tmp_path):
    from terazi.formats import gguf, open_model

    opened = open_model(model)
    tensors = [t for t in opened.tensors.values() if t.name != "blk.1.ffn_norm.weight"]
    path = gguf.write(tmp_path / "broken.gguf", opened.metadata, tensors)
    with pytest.raises(EngineError):
        collect(path, corpus, **OPTIONS)


def test_the_verb_takes_a_directory_and_adds_earlier_ones(experts, model, tmp_path, corpus):
    text = tmp_path / "t.txt"
    text.write_text(corpus.text)
    first = terazi.calibrate(experts, text, output=tmp_path / "a.gguf", chunks=2, **OPTIONS)
    assert load(tmp_path / "a.gguf").digest == first.digest
    assert first.digest == collect(model, Corpus("t.txt", corpus.text), chunks=2, **OPTIONS).digest
    both = terazi.calibrate(
        experts, text, output=tmp_path / "b.gguf", earlier=[tmp_path / "a.gguf"], chunks=2, **OPTIONS
    )
    name = "blk.0.attn_q.weight"
    assert np.allclose(both.sums[name].squares, 2 * first.sums[name].squares)
    assert both.chunks == 4
    with pytest.raises(ExistsError):
        terazi.calibrate(experts, text, output=tmp_path / "a.gguf", chunks=2, **OPTIONS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gguf", "b.gguf", "t.txt"]


def test_the_command(model, tmp_path, corpus):
    (tmp_path / "t.txt").write_text(corpus.text)
    out = tmp_path / "i.gguf"
    arguments = [str(model), str(out), "--text", str(tmp_path / "t.txt"), "--context", "64", "--threads", "1"]
    done = CliRunner().invoke(command, [*arguments, "--chunks", "2", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert (found["path"], found["chunks"], found["digest"]) == (str(out), 2, load(out).digest)
    shown = CliRunner().invoke(command, [str(out), "--statistics"])
    assert "blk.1.ffn_down_exps.weight" in shown.output
    merged = CliRunner().invoke(command, [str(out), str(tmp_path / "m.gguf"), "--merge", str(out)])
    assert merged.exit_code == 0
    assert load(tmp_path / "m.gguf").chunks == 4
    assert CliRunner().invoke(command, [str(out)]).exit_code == 2
    again = CliRunner().invoke(command, arguments)
    assert isinstance(again.exception, TeraziError)


def test_llama_quantize_weighs_with_it(model, tmp_path, corpus):
    """The matrix changes the bytes that `terazi quantize` writes, and only where it should."""
    calibration = collect(model, corpus, chunks=4, **OPTIONS)
    plain, weighed = (
        terazi.quantize(model, "Q4_0", output=tmp_path / f"{name}.gguf", calibration=found)
        for name, found in (("plain", None), ("weighed", calibration))
    )
    a, b = terazi.open_model(plain.path), terazi.open_model(weighed.path)
    assert b.metadata["quantize.imatrix.entries_count"] == len(calibration)
    different = {
        name
        for name, tensor in a.tensors.items()
        if tensor.type == b.tensors[name].type
        and not np.array_equal(tensor.encoded(), b.tensors[name].encoded())
    }
    assert {"blk.0.attn_q.weight", "blk.0.ffn_up_exps.weight"} <= different
    assert different <= set(calibration)


def test_more_context_than_the_model_was_trained_for_is_refused(model, corpus):
    trained = open_model(model).config.context_length
    with pytest.raises(UsageError, match=f"trained for {trained} tokens, not {trained + 1}"):
        collect(model, corpus, context=trained + 1, threads=1)
    assert collect(model, corpus, threads=1, chunks=1).chunk_size == min(512, trained)
