"""What is written runs in llama.cpp, and more bits mean less difference to the original."""

import numpy as np
import pytest

from terazi.calibrate import calibration_corpus, collect
from terazi.quantize import apply, make_plan, open_source
from terazi.runtime.llamacpp import open_engine

PRESETS = ["Q8_0", "Q5_K_M", "Q4_K_M", "IQ3_S", "Q2_K", "IQ2_XS", "IQ1_M"]


def _log_probabilities(path, tokens):
    with open_engine(path, context=128, threads=1) as engine:
        logits = engine.logits(tokens).astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_more_bits_are_closer_to_the_original(reference_9m, hamlet, tmp_path):
    model = open_source(reference_9m)
    original = apply(make_plan(model, "F16"), model, tmp_path / "original.gguf").path
    calibration = collect(original, calibration_corpus(), chunks=8, threads=1)
    with open_engine(original, context=128, threads=1) as engine:
        tokens = engine.tokenize(hamlet.read_text()[50_000:52_000])[:128]
    expected = _log_probabilities(original, tokens)
    divergence = {}
    for preset in PRESETS:
        plan = make_plan(model, preset, calibration=calibration)
        path = apply(plan, model, tmp_path / f"{preset}.gguf", calibration=calibration).path
        found = _log_probabilities(path, tokens)
        divergence[preset] = float((np.exp(expected) * (expected - found)).sum(-1).mean())
    assert divergence["Q8_0"] < 0.01
    assert all(np.isfinite(value) and value > -1e-6 for value in divergence.values())
    assert list(divergence.values()) == pytest.approx(sorted(divergence.values())), divergence
