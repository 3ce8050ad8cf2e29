"""Candidates with chosen figures, for tests of judgement (not of measurement)."""

from __future__ import annotations

from terazi.devices import Cpu, Device, Memory
from terazi.evaluate.measurement import METRICS, Measurement
from terazi.search import Candidate, Sample


def measurement(metric: str, value: float, uncertainty: float | None = None) -> Measurement:
    return Measurement(
        metric=metric,
        value=value,
        unit=METRICS[metric].unit,
        artifact="0" * 64,
        device="this-machine",
        uncertainty=uncertainty,
    )


def variant(
    label: str,
    megabytes: float,
    *,
    bits: float = 4.5,
    memory: float | None = None,
    type: str = "Q4_K",
    source: bool = False,
    failure: str | None = None,
    samples: tuple[Sample, ...] = (),
    **values: float,
) -> Candidate:
    size = int(megabytes * 1e6)
    return Candidate(
        label=label,
        size=size,
        bits_per_weight=bits,
        memory_needed=int((memory or megabytes * 1.5) * 1e6),
        token_bytes=size,
        types={type: 900, "F32": 10},
        source=source,
        failure=failure,
        samples=samples,
        measurements=tuple(measurement(metric, value) for metric, value in values.items()),
    )


def machine(*, usable: str = "8 GB", bandwidth: str = "20 GB/s", detected: bool = False) -> Device:
    return Device(
        name="test-board",
        title="Test Board",
        memory=Memory(total="16 GB", usable=usable, bandwidth=bandwidth, source="chosen"),
        cpu=Cpu(name="two cores", cores=2, architecture="aarch64"),
        runtimes=("llama.cpp", "onnxruntime"),
        formats=("gguf", "onnx"),
        detected=detected,
    )
