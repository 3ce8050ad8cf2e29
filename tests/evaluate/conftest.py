"""Small pairs of models: a reference and a quantized variant of it."""

import pytest

from terazi.api import convert, quantize
from terazi.progress import silent


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluate-models")


@pytest.fixture(scope="session")
def smaller(smollm2, made):
    """SmolLM2 with most weights in Q4_0."""
    return quantize(smollm2, "Q4_0", output=made / "smaller.gguf", threads=1).path


@pytest.fixture(scope="session")
def reference_gguf(reference_9m, made):
    """reference-9m as GGUF in F32."""
    return convert(reference_9m, output=made / "reference.gguf", type="F32").path


@pytest.fixture(scope="session")
def reference_q2(reference_gguf, made):
    return quantize(reference_gguf, "Q2_K", output=made / "q2.gguf", threads=1).path


@pytest.fixture(scope="session")
def minilm_gguf(minilm, made):
    return convert(minilm, output=made / "minilm.gguf", type="F32").path


@pytest.fixture(scope="session")
def minilm_q4(minilm_gguf, made):
    return quantize(minilm_gguf, "Q4_0", output=made / "minilm-q4.gguf", threads=1).path


@pytest.fixture
def reports():
    """A progress callable that remembers its calls."""
    calls = []

    def report(task, done, total, *, unit=""):
        silent(task, done, total, unit=unit)
        calls.append((task, done, total, unit))

    report.calls = calls
    return report
