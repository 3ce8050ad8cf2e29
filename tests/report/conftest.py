import shutil
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from terazi import devices, report
from terazi.devices import Budget
from terazi.evaluate.measurement import METRICS, Measurement
from terazi.search import Candidate, Sample, recommend

HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "\u202e\x1b[31m&amp;'\"{{7*7}}"
)
CONDITIONS = {"runtime": "llama.cpp", "threads": 1, "corpus": HOSTILE, "windows": 4, "context": 512}

PROMPT = "Explain in two sentences why the sky is blue."


def candidate(
    label, megabytes, *, bits, type, answer="Because of scattering.", failure=None, source=False, **values
):
    size = int(megabytes * 1e6)
    measurements = () if failure else tuple(
        Measurement(
            metric=metric,
            value=value,
            unit=METRICS[metric].unit,
            artifact="ab" * 32,
            device="this-machine",
            uncertainty=value / 50,
            samples=1020,
            conditions=CONDITIONS,
        )
        for metric, value in values.items()
    )  # fmt: skip
    return Candidate(
        label=label,
        size=size,
        bits_per_weight=bits,
        memory_needed=size * 3,
        token_bytes=size,
        types={type: 900, "F32": 10},
        source=source,
        failure=failure,
        measurements=measurements,
        samples=() if failure else (Sample(prompt=PROMPT, answer=answer, tokens=9),),
    )


@pytest.fixture(scope="session")
def recommendation():
    """A judged series with a source, a hostile answer, a rejected and a failed variant."""
    rows = (
        ("Q8_0", 145, 8.5, "Q8_0", 0.002, 0.98, 30),
        ("Q4_K_M", 90, 4.9, "Q4_K", 0.03, 0.92, 40),
        ("Q3_K_M", 88, 3.9, "Q3_K", 0.1, 0.85, 41),
        ("Q2_K", 60, 2.9, "Q2_K", 0.8, 0.5, 45),
    )
    candidates = [
        candidate("F16", 270, bits=16, type="F16", source=True, perplexity=20.0, decode_speed=20),
        *(
            candidate(
                label,
                megabytes,
                bits=bits,
                type=type,
                kl_divergence=kl,
                agreement=agreement,
                decode_speed=speed,
                answer=HOSTILE if label == "Q3_K_M" else "Because.",
            )
            for label, megabytes, bits, type, kl, agreement, speed in rows
        ),
        candidate("IQ1_S", 40, bits=1.6, type="IQ1_S", failure=f"the engine crashed {HOSTILE}"),
    ]
    return recommend(
        candidates, devices.device("raspberry-pi-5"), devices.use_case("chat"), Budget(), context=4096
    )


@pytest.fixture(scope="session")
def subject():
    return report.Subject(
        name=HOSTILE,
        path="org/model:135m",
        digest="cd" * 32,
        format="gguf",
        architecture="llama",
        parameters=135_000_000,
        license=HOSTILE,
        variant="instruct",
        context_length=8192,
        quantized=True,
    )


@pytest.fixture(scope="session")
def document(recommendation, subject):
    return report.document(
        recommendation,
        replace(subject),
        run="terazi run model.gguf 'Hello'",
        method=report.method(recommendation),
        commands=("terazi optimize org/model:135m --device raspberry-pi-5",),
        created=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
    )


@pytest.fixture(scope="session")
def chromium():
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    return path
